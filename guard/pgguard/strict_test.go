package pgguard_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// strictly sets the database up for signed tenants, with these keys.
func (w *world) strictly(keys ...pgguard.Key) {
	w.Helper()
	p := policies(w)
	p.Strict = true
	script, err := p.SQL()
	w.must(err)
	w.super(script)
	w.super(script) // as often as you like
	super, err := pgx.Connect(w.Context(), w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), "shop"))
	w.must(err)
	defer func() { _ = super.Close(w.Context()) }()
	for _, key := range keys {
		w.must(key.Install(w.Context(), super))
		w.must(key.Install(w.Context(), super)) // twice does no harm
	}
}

func (w *world) strict(pool *pgxpool.Pool, key pgguard.Key) *pgguard.Strict {
	w.Helper()
	s, err := pgguard.NewStrict(pool, key)
	w.must(err)
	return s
}

func TestASignatureHoldsForItsTransactionAndTenant(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	key := pgguard.NewKey()
	w.strictly(key)
	pool := w.pool(w.dsn(), 1) // all is one connection
	s := w.strict(pool, key)
	count := func(tx pgx.Tx) (n int) {
		t.Helper()
		w.must(tx.QueryRow(t.Context(), "SELECT count(*) FROM shop.orders").Scan(&n))
		return n
	}
	var theirs string
	w.must(s.WithTenant(w.as(1), func(tx pgx.Tx) error {
		if n := count(tx); n != 10 {
			t.Errorf("a tenant sees %d of its 10 rows", n)
		}
		return tx.QueryRow(t.Context(), "SELECT current_setting('tenantguard.tenant')").Scan(&theirs)
	}))
	if mac, tenant, _ := strings.Cut(theirs, ":"); len(mac) != 64 || tenant != "tenant-01" {
		t.Fatalf("the setting was %q", theirs)
	}
	for what, value := range map[string]string{
		"that of another transaction": theirs, "without a signature": "tenant-01", "an empty one": ":tenant-01", "": "",
	} {
		w.must(s.WithTenant(w.as(0), func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "SELECT set_config('tenantguard.tenant', $1, true)", value)
			w.must(err)
			if n := count(tx); n != 0 {
				t.Errorf("%s: %d rows", what, n)
			}
			return nil
		}))
	}
	w.must(s.WithTenant(w.as(0), func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "SELECT set_config('tenantguard.tenant', replace(current_setting('tenantguard.tenant'), 'tenant-00', 'tenant-01'), true)")
		w.must(err)
		if n := count(tx); n != 0 {
			t.Errorf("one's own signature for another tenant: %d rows", n)
		}
		return nil
	}))
	if err := pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		if n := count(tx); n != 0 {
			t.Errorf("unsigned: %d rows", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := s.WithTenant(t.Context(), func(pgx.Tx) error { t.Error("it ran"); return nil }); !errors.Is(err, guard.ErrNoToken) {
		t.Errorf("without a token: %v", err)
	}
}

func TestNothingIsLeftForTheNextTenant(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	key := pgguard.NewKey()
	w.strictly(key)
	w.super("ALTER ROLE shop_app SET search_path = shop; GRANT TEMP ON DATABASE shop TO shop_app") // which CheckRole refuses
	s := w.strict(w.pool(w.dsn(), 1), key)
	w.must(s.WithTenant(w.as(0), func(tx pgx.Tx) error {
		_, err := tx.Conn().PgConn().Exec(t.Context(), "DECLARE mine CURSOR WITH HOLD FOR SELECT tenant FROM shop.orders;"+
			"CREATE TEMP TABLE orders (tenant text, id bigint, writer text); SET search_path = pg_temp, public").ReadAll()
		return err
	}))
	w.must(s.WithTenant(w.as(1), func(tx pgx.Tx) error {
		var where string
		w.must(tx.QueryRow(t.Context(), "SELECT 'orders'::regclass::oid::regclass::text || ' ' || current_setting('search_path')").Scan(&where))
		if where != "orders shop" {
			t.Errorf("orders is %s", where)
		}
		_, err := tx.Exec(t.Context(), "INSERT INTO orders VALUES ('tenant-01', 77, 'tenant-01')")
		w.must(err)
		inner, err := tx.Begin(t.Context())
		w.must(err)
		if _, err := inner.Exec(t.Context(), "FETCH ALL FROM mine"); err == nil {
			t.Error("a cursor was left")
		}
		return inner.Rollback(t.Context())
	}))
	if !one[bool](w, "SELECT EXISTS (SELECT FROM shop.orders WHERE id = 77)") {
		t.Error("a row went into a table that another tenant has left")
	}
}

func TestKeysOverlapAndEnd(t *testing.T) {
	w := newWorld(t, 1)
	w.fill()
	former, next, foreign := pgguard.NewKey(), pgguard.NewKey(), pgguard.NewKey()
	w.strictly(former, next)
	pool := w.pool(w.dsn(), 1)
	sees := func(key pgguard.Key) (n int) {
		t.Helper()
		w.must(w.strict(pool, key).WithTenant(w.as(0), func(tx pgx.Tx) error {
			return tx.QueryRow(t.Context(), "SELECT count(*) FROM shop.orders").Scan(&n)
		}))
		return n
	}
	if a, b, c := sees(former), sees(next), sees(foreign); a != 10 || b != 10 || c != 0 {
		t.Errorf("the former key sees %d, the next %d, one of nobody %d", a, b, c)
	}
	w.super("DELETE FROM tenantguard.keys WHERE id = '" + former.ID() + "'")
	if a, b := sees(former), sees(next); a != 0 || b != 10 {
		t.Errorf("after its end the former key sees %d, the next %d", a, b)
	}
	if err := pgguard.CheckRole(t.Context(), pool); err != nil {
		t.Error(err)
	}
	if _, err := pool.Exec(t.Context(), "SELECT FROM tenantguard.keys"); err == nil {
		t.Error("the service's role reads the keys")
	}
}

func TestKeysAreNotShown(t *testing.T) {
	key := pgguard.NewKey()
	again, err := pgguard.ParseKey(" " + key.Reveal() + "\n")
	if err != nil || again.Reveal() != key.Reveal() || again.ID() != key.ID() {
		t.Fatalf("a key comes back as another: %v", err)
	}
	encoded, err := json.Marshal(map[string]any{"key": key, "pointer": &key})
	if err != nil {
		t.Fatal(err)
	}
	var line strings.Builder
	slog.New(slog.NewTextHandler(&line, nil)).Info("here", "key", key, "in", struct{ K pgguard.Key }{key})
	shown := fmt.Sprintf("%v %+v %#v %s %x %q %d %v", key, key, key, key, key, key, key, struct{ K pgguard.Key }{key}) + string(encoded) + line.String()
	raw, err := base64.StdEncoding.DecodeString(key.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{key.Reveal(), string(raw), fmt.Sprintf("%x", raw), fmt.Sprintf("%X", raw), strings.Trim(fmt.Sprintf("%d", raw), "[]"), "0x"} {
		if strings.Contains(shown, form) {
			t.Errorf("a key is shown: %q", shown)
		}
	}
	for _, bad := range []string{"", "x", key.Reveal()[1:], key.Reveal() + "AAAA", strings.Repeat("=", 44)} {
		if _, err := pgguard.ParseKey(bad); !errors.Is(err, pgguard.ErrKey) || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := pgguard.NewStrict(nil, pgguard.Key{}); !errors.Is(err, pgguard.ErrKey) {
		t.Errorf("no key: %v", err)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add(" x\n")
	f.Fuzz(func(t *testing.T, s string) {
		key, err := pgguard.ParseKey(s)
		if err == nil && key.Reveal() != strings.NewReplacer("\r", "", "\n", "").Replace(strings.TrimSpace(s)) {
			t.Errorf("%q is %s", s, key.Reveal())
		}
	})
}
