package pgguard_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// attacks are what somebody sends who can have any SQL run in a transaction of
// his own tenant. Each gets another tenant, his own setting, and one that was
// good in a transaction of the other.
var attacks = map[string]string{
	"set_config":          "SELECT set_config('tenantguard.tenant', '%[1]s', true)",
	"set_config session":  "SELECT set_config('tenantguard.tenant', '%[1]s', false)",
	"SET":                 "SET tenantguard.tenant = '%[1]s'",
	"SET LOCAL":           "SET LOCAL tenantguard.tenant = '%[1]s'",
	"own signature":       "SET LOCAL tenantguard.tenant = '%[2]s:%[1]s'",
	"empty signature":     "SET LOCAL tenantguard.tenant = ':%[1]s'",
	"replay":              "SET LOCAL tenantguard.tenant = '%[3]s'",
	"replay session":      "SET tenantguard.tenant = '%[3]s'",
	"new transaction":     "COMMIT; BEGIN; SET LOCAL tenantguard.tenant = '%[1]s'",
	"replay there":        "COMMIT; BEGIN; SET LOCAL tenantguard.tenant = '%[3]s'",
	"savepoint":           "SAVEPOINT a; SET LOCAL tenantguard.tenant = '%[1]s'; SAVEPOINT b; RELEASE b",
	"rolled back":         "SAVEPOINT a; SET LOCAL tenantguard.tenant = '%[3]s'; ROLLBACK TO a; SET LOCAL tenantguard.tenant = '%[1]s'",
	"become the owner":    "SET ROLE tenantguard_owner",
	"read the keys":       "DO $$ BEGIN PERFORM * FROM tenantguard.keys; SET LOCAL tenantguard.tenant = '%[1]s'; END $$",
	"another function":    "CREATE OR REPLACE FUNCTION tenantguard.tenant() RETURNS text LANGUAGE sql AS $$ SELECT '%[1]s' $$",
	"another sha256":      "SET LOCAL search_path = pg_temp, public; CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT ''::bytea $$; SET LOCAL tenantguard.tenant = ':%[1]s'",
	"drop the policy":     "DROP POLICY tenantguard_only ON shop.orders",
	"switch it off":       "ALTER TABLE shop.items DISABLE ROW LEVEL SECURITY",
	"row_security":        "SET LOCAL row_security = off",
	"a table in front":    "CREATE TEMP TABLE orders AS SELECT * FROM shop.orders; SET search_path = pg_temp, shop",
	"a cursor that stays": "DECLARE mine CURSOR WITH HOLD FOR SELECT tenant FROM shop.orders",
	"what others left":    "FETCH ALL FROM mine",
	"a statement stays":   "PREPARE ours AS SELECT tenant FROM shop.orders",
	"what others planned": "EXECUTE ours",
	"ended":               "COMMIT",
	"ended, another":      "ROLLBACK; SET tenantguard.tenant = '%[1]s'",
	"ended, replay":       "COMMIT; SET tenantguard.tenant = '%[3]s'",
	"reset":               "RESET ALL",
	"by default":          "ALTER ROLE shop_app SET tenantguard.tenant = '%[3]s'", // a role may change its own
}

// lasting are attacks on the next transaction of the same connection, whose tenant
// would see nothing, write nothing or fail.
var lasting = map[string]string{
	"blind to come":     "COMMIT; SET row_security = off; BEGIN",
	"read-only to come": "COMMIT; SET default_transaction_read_only = on; SET default_transaction_isolation = serializable; SET statement_timeout = '5s'; BEGIN",
	"another role":      "COMMIT; SET ROLE shop_idle; BEGIN",
}

// idle is a role that the application's may become, and that may do nothing.
func (w *world) idle() {
	w.Helper()
	w.super("CREATE ROLE shop_idle; GRANT shop_idle TO shop_app")
}

// attack sends one of them, which may fail, and goes on whatever came of it.
func (a *attempt) attack(tx pgx.Tx) error {
	var own string
	if err := tx.QueryRow(a.ctx, "SELECT current_setting('tenantguard.tenant')").Scan(&own); err != nil {
		return err
	}
	a.captured.Store(a.own, own)
	replayed := a.other
	if kept, is := a.captured.Load(a.other); is {
		replayed, _ = kept.(string)
	}
	all := maps.Clone(attacks)
	if a.honest {
		maps.Copy(all, lasting)
	}
	names := slices.Sorted(maps.Keys(all))
	name := names[a.random.IntN(len(names))]
	mac, _, _ := strings.Cut(own, ":")
	a.refused = true // from here on the tenant may see nothing, and that is well
	if strings.HasPrefix(name, "what others ") {
		_, err := a.reads(tx, attacks[name])
		return err
	}
	query := all[name]
	for i, value := range []string{a.other, mac, replayed} {
		query = strings.ReplaceAll(query, fmt.Sprintf("%%[%d]s", i+1), value)
	}
	_, err := tx.Conn().PgConn().Exec(a.ctx, query).ReadAll() // several statements at once
	a.mu.Lock()
	a.done["attack: "+name]++
	a.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = a.reads(tx, "SELECT tenant FROM "+a.table)
	return err
}

// wasAttacked fails the test if something crossed, or too little was tried.
func (s *suite) wasAttacked() {
	s.Helper()
	s.Log(s)
	if !s.green() {
		s.Errorf("crossed: %s", s)
	}
	for _, name := range slices.Sorted(maps.Keys(attacks)) {
		if !strings.HasPrefix(name, "what others ") && s.done["attack: "+name] < 100 {
			s.Errorf("%q was tried %d times only", name, s.done["attack: "+name])
		}
	}
	for name := range lasting {
		if s.done["attack: "+name] < 100 {
			s.Errorf("%q was tried %d times only", name, s.done["attack: "+name])
		}
	}
	if s.done["no attack"] < 2000 {
		s.Errorf("%d transactions of others than attackers", s.done["no attack"])
	}
}

func TestInjectedSQLChoosesNoTenantInStrictMode(t *testing.T) {
	w := newWorld(t, 50)
	w.fill()
	key := pgguard.NewKey()
	w.strictly(key)
	w.idle()
	strict := w.strict(w.pool(w.dsn(), 10), key)

	honest := &suite{world: w, within: strict.WithTenant}
	honest.run(500)
	if !honest.green() {
		t.Errorf("without attacks: %s", honest)
	}
	attacked := &suite{world: w, within: strict.WithTenant, inject: true, honest: true}
	attacked.next.Store(1_000_000)
	attacked.run(10_000)
	attacked.wasAttacked()

	// The same attacks find their way where nothing is signed.
	script, err := policies(w).SQL()
	w.must(err)
	w.super(script)
	pool := w.pool(w.dsn(), 10)
	plain := &suite{world: w, inject: true, within: func(ctx context.Context, fn func(pgx.Tx) error) error { return pgguard.WithTenant(ctx, pool, fn) }}
	plain.next.Store(2_000_000)
	plain.run(500)
	t.Log(plain)
	if plain.read.Load() == 0 || plain.written.Load() == 0 {
		t.Errorf("attacks were not seen in plain mode: %s", plain)
	}
}
