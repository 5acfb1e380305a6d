package pgguard_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

func TestASignedTransactionOfDatabaseSQL(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	key := pgguard.NewKey()
	w.strictly(key)
	db := w.db(w.dsn())
	db.SetMaxOpenConns(1)
	s := w.strictSQL(db, key)
	for i, tenant := range w.tenants {
		for _, opts := range []*sql.TxOptions{nil, {ReadOnly: true}, {Isolation: sql.LevelSerializable}} {
			w.must(s.WithTenant(w.as(i), opts, func(tx *sql.Tx) error {
				var own, others int
				w.must(tx.QueryRowContext(t.Context(), "SELECT count(*) FILTER (WHERE tenant = $1), count(*) FILTER (WHERE tenant <> $1) FROM shop.orders", tenant).
					Scan(&own, &others))
				if own != 10 || others != 0 {
					t.Errorf("%s sees %d of its own rows and %d of others", tenant, own, others)
				}
				return nil
			}))
		}
	}
	failed := errors.New("failed")
	if err := s.WithTenant(w.as(0), nil, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), "DELETE FROM shop.orders")
		return errors.Join(err, failed)
	}); !errors.Is(err, failed) || one[int](w, "SELECT count(*) FROM shop.orders") != 20 {
		t.Errorf("an error: %v", err)
	}
	// Unsigned, there are no rows; without a token, there is no transaction.
	w.must(pgguard.WithTenantSQL(w.as(0), db, nil, func(tx *sql.Tx) error {
		var n int
		if w.must(tx.QueryRowContext(t.Context(), "SELECT count(*) FROM shop.orders").Scan(&n)); n != 0 {
			t.Errorf("unsigned: %d rows", n)
		}
		return nil
	}))
	if err := s.WithTenant(t.Context(), nil, func(*sql.Tx) error { t.Error("it ran"); return nil }); !errors.Is(err, guard.ErrNoToken) {
		t.Errorf("without a token: %v", err)
	}
	if _, err := pgguard.NewStrictSQL(db, pgguard.Key{}); !errors.Is(err, pgguard.ErrKey) {
		t.Errorf("no key: %v", err)
	}
}

func TestNothingIsLeftForTheNextTenantOfDatabaseSQL(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	key := pgguard.NewKey()
	w.strictly(key)
	w.super("ALTER ROLE shop_app SET search_path = shop; GRANT TEMP ON DATABASE shop TO shop_app") // which CheckRole refuses
	db := w.db(w.dsn())
	db.SetMaxOpenConns(1)
	s := w.strictSQL(db, key)
	w.must(s.WithTenant(w.as(0), nil, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), "DECLARE mine CURSOR WITH HOLD FOR SELECT tenant FROM shop.orders;"+
			"CREATE TEMP TABLE orders (tenant text, id bigint, writer text); SET search_path = pg_temp, public")
		return err
	}))
	w.must(s.WithTenant(w.as(1), nil, func(tx *sql.Tx) error {
		var where string
		w.must(tx.QueryRowContext(t.Context(), "SELECT 'orders'::regclass::oid::regclass::text || ' ' || current_setting('search_path') || ' ' || (SELECT count(*) FROM pg_cursors WHERE is_holdable)").Scan(&where))
		if where != "orders shop 0" || one[int](w, "SELECT count(*) FROM pg_class WHERE relname = 'orders' AND relpersistence = 't'") != 1 {
			t.Errorf("orders, the path and cursors: %s", where)
		}
		return nil
	}))
}

// 20 tenants at once send what an attacker would, through a PgBouncer that has
// three connections for them all.
func TestInjectedSQLChoosesNoTenantOfDatabaseSQL(t *testing.T) {
	w := newWorld(t, 20)
	w.fill()
	key := pgguard.NewKey()
	w.strictly(key)
	db := w.db(w.server.BounceForTest(t, devpostgres.BouncerOptions{Database: "shop", Settings: map[string]string{"default_pool_size": "3"}}).DSN("shop_app", password))
	db.SetMaxIdleConns(len(w.tenants)) // a login takes longer than an attack
	s := w.strictSQL(db, key)
	w.must(s.CheckRole(t.Context()))
	w.idle()
	signed := &rawAttacks{world: w, within: s.WithTenant, honest: true}
	signed.run(2_000)
	if t.Log(signed); signed.others.Load() != 0 || signed.own.Load() == 0 || signed.odd.Load() != nil || signed.found.Load() < 300 {
		t.Errorf("crossed: %s", signed)
	}
	script, err := policies(w).SQL()
	w.must(err)
	w.super(script)
	plain := &rawAttacks{world: w, within: func(ctx context.Context, opts *sql.TxOptions, fn func(*sql.Tx) error) error {
		return pgguard.WithTenantSQL(ctx, db, opts, fn)
	}}
	plain.run(200)
	if t.Log(plain); plain.others.Load() == 0 {
		t.Errorf("attacks were not seen in plain mode: %s", plain)
	}
}

// rawAttacks sends attacks by database/sql.
type rawAttacks struct {
	*world
	within      func(context.Context, *sql.TxOptions, func(*sql.Tx) error) error
	captured    sync.Map // tenant → a setting that was good in one of its transactions
	own, others atomic.Int64
	odd         atomic.Value // an error of something else than an attack
	honest      bool         // some transactions are not attacked
	found       atomic.Int64 // of those, who found their own and could write
}

func (a *rawAttacks) String() string {
	return fmt.Sprintf("%d rows of one's own, %d of others, %d transactions without an attack, first unwanted error %v",
		a.own.Load(), a.others.Load(), a.found.Load(), a.odd.Load())
}

func (a *rawAttacks) run(n int) {
	tried := maps.Clone(attacks)
	if a.honest {
		maps.Copy(tried, lasting)
	}
	names := slices.Sorted(maps.Keys(tried))
	var all sync.WaitGroup
	for i := range a.tenants {
		ctx := a.as(i)
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 11))
			for range n / len(a.tenants) {
				if a.honest && random.IntN(3) == 0 {
					a.unattacked(ctx, i)
					continue
				}
				a.one(ctx, i, tried[names[random.IntN(len(names))]], random)
			}
		})
	}
	all.Wait()
}

// unattacked is a transaction after an attacker's on the same connection.
func (a *rawAttacks) unattacked(ctx context.Context, i int) {
	err := a.within(ctx, nil, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, "UPDATE shop.items SET note = note WHERE id = 0")
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 {
			return fmt.Errorf("%d rows of its own, %w", n, err)
		}
		return nil
	})
	if err != nil {
		a.odd.CompareAndSwap(nil, fmt.Errorf("without an attack: %w", err))
		return
	}
	a.found.Add(1)
}

func (a *rawAttacks) one(ctx context.Context, i int, attack string, random *rand.Rand) {
	other := a.tenants[(i+1+random.IntN(len(a.tenants)-1))%len(a.tenants)]
	err := a.within(ctx, nil, func(tx *sql.Tx) error {
		if err := a.look(ctx, tx, i, "SELECT tenant FROM shop.orders"); err != nil {
			return err
		}
		var setting string
		if err := tx.QueryRowContext(ctx, "SELECT current_setting('tenantguard.tenant')").Scan(&setting); err != nil {
			return err
		}
		a.captured.Store(a.tenants[i], setting)
		replayed, _ := a.captured.Load(other)
		mac, _, _ := strings.Cut(setting, ":")
		for place, value := range []string{other, mac, fmt.Sprint(replayed)} {
			attack = strings.ReplaceAll(attack, fmt.Sprintf("%%[%d]s", place+1), value)
		}
		if strings.HasPrefix(attack, "FETCH") || strings.HasPrefix(attack, "EXECUTE") {
			return a.look(ctx, tx, i, attack)
		}
		if _, err := tx.ExecContext(ctx, attack); err != nil {
			return err
		}
		return a.look(ctx, tx, i, "SELECT tenant FROM shop.orders")
	})
	// The server refuses, or the transaction has ended by the attack's own COMMIT.
	if _, is := errors.AsType[*pgconn.PgError](err); err != nil && !is && !errors.Is(err, pgguard.ErrEnded) {
		a.odd.CompareAndSwap(nil, fmt.Errorf("with an attack: %w", err))
	}
}

// look counts whose rows a query returns.
func (a *rawAttacks) look(ctx context.Context, tx *sql.Tx, i int, query string) error {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var tenant string
		if err := rows.Scan(&tenant); err != nil {
			return err
		}
		if tenant == a.tenants[i] {
			a.own.Add(1)
		} else {
			a.others.Add(1)
		}
	}
	return rows.Err()
}
