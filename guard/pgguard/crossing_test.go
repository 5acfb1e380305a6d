package pgguard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// within runs a function in a tenant's transaction, in one of the ways.
type within func(ctx context.Context, fn func(pgx.Tx) error) error

// suite tries to cross, many times at once.
type suite struct {
	*world
	within within
	inject bool // an attacker's statements come before those of the application
	honest bool // but not before a third of them, which follow on the same connections

	captured sync.Map // tenant → a setting that was good in one of its transactions

	read    atomic.Int64 // another tenant's rows that were read
	written atomic.Int64 // statements that changed another tenant's rows
	blind   atomic.Int64 // times that a tenant did not find its own row
	next    atomic.Int64 // ids of new rows

	mu   sync.Mutex
	done map[string]int // by what was done, and how it ended
	odd  error          // the first error that nobody wanted
}

// errUndo rolls a transaction back.
var errUndo = errors.New("undo")

// run does operations, shared by all tenants at once.
func (s *suite) run(operations int) {
	s.Helper()
	s.done = make(map[string]int)
	s.next.CompareAndSwap(0, 1000)
	contexts := make([]context.Context, len(s.tenants))
	for i := range s.tenants {
		contexts[i] = s.as(i)
	}
	var all sync.WaitGroup
	for i := range s.tenants {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 7))
			for range operations / len(s.tenants) {
				s.operation(contexts[i], i, random)
			}
		})
	}
	all.Wait()
	// What was written is looked at by one whom no policy binds. Row 0 of each
	// tenant is its own to the end, and nobody else's.
	for _, table := range guardedTables {
		s.written.Add(one[int64](s.world, "SELECT count(*) FROM "+table+" WHERE writer <> tenant"))
		if n := one[int](s.world, "SELECT count(*) FROM "+table+" WHERE id = 0"); n != len(s.tenants) {
			s.written.Add(int64(len(s.tenants) - n))
		}
	}
}

// green reports whether nobody crossed, everybody found its own, and nothing
// failed that should not.
func (s *suite) green() bool { return s.crossings() == 0 && s.blind.Load() == 0 && s.odd == nil }

func (s *suite) crossings() int64 { return s.read.Load() + s.written.Load() }

func (s *suite) String() string {
	return fmt.Sprintf("%d read, %d written, %d blind, first unwanted error %v, of %v", s.read.Load(), s.written.Load(), s.blind.Load(), s.odd, s.done)
}

// operation is one transaction that ends in one of the ways.
func (s *suite) operation(ctx context.Context, i int, random *rand.Rand) {
	ending := []string{"commit", "commit", "commit", "commit", "undo", "undo", "panic", "cancel"}[random.IntN(8)]
	if ending == "cancel" && random.IntN(3) > 0 {
		ending = "commit" // each costs a connection
	}
	var cancel context.CancelFunc
	if ctx, cancel = context.WithCancel(ctx); ending == "cancel" {
		time.AfterFunc(time.Duration(random.IntN(4000))*time.Microsecond, cancel)
	}
	defer cancel()
	a := &attempt{suite: s, ctx: ctx, own: s.tenants[i], other: s.tenants[(i+1+random.IntN(len(s.tenants)-1))%len(s.tenants)], random: random}
	a.table = guardedTables[random.IntN(len(guardedTables))]
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil && p != "on purpose" {
				panic(p)
			} else if p != nil {
				err = errUndo
			}
		}()
		return s.within(ctx, func(tx pgx.Tx) error {
			if err := a.statements(tx); err != nil {
				return err
			}
			switch ending {
			case "panic":
				panic("on purpose")
			case "undo":
				return errUndo
			case "cancel":
				_, err := tx.Exec(ctx, "SELECT pg_sleep(0.005)")
				return err
			}
			return nil
		})
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[ending]++
	if err != nil && !errors.Is(err, errUndo) && !a.refused && ctx.Err() == nil && s.odd == nil {
		s.odd = fmt.Errorf("%s, %s: %w", ending, a.what, err)
	}
}

// attempt is the statements of one transaction.
type attempt struct {
	*suite
	ctx        context.Context
	own, other string
	table      string
	what       string
	refused    bool // a statement was refused, or takes the tenant away, as it should
	random     *rand.Rand
}

func (a *attempt) statements(tx pgx.Tx) error {
	switch {
	case !a.inject:
	case !a.honest || a.random.IntN(3) > 0:
		if err := a.attack(tx); err != nil {
			return err
		}
	default:
		a.mu.Lock()
		a.done["no attack"]++
		a.mu.Unlock()
		if err := a.list(tx); err != nil {
			return err
		}
	}
	for range 1 + a.random.IntN(2) {
		if err := a.one(tx); err != nil {
			return err
		}
	}
	return nil
}

// one is one of the things that applications do, and forget the tenant in.
func (a *attempt) one(tx pgx.Tx) error {
	ways := map[string]func(pgx.Tx) error{
		"list": a.list, "by id": a.byID, "join": a.join, "insert": a.insert, "insert for another": a.insertFor,
		"update all": a.update, "give away": a.giveAway, "delete": a.remove, "savepoint": a.savepoint, "copy": a.copyIn,
	}
	names := [...]string{"list", "by id", "join", "insert", "insert for another", "update all", "give away", "delete", "savepoint", "copy"}
	a.what = names[a.random.IntN(len(names))]
	a.mu.Lock()
	a.done[a.what]++
	a.mu.Unlock()
	return ways[a.what](tx)
}

// reads counts whose rows a query returns; the first column is the tenant.
func (a *attempt) reads(tx pgx.Tx, query string, args ...any) (own int, err error) {
	rows, err := tx.Query(a.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	tenants, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, tenant := range tenants { // also of those that came before an error
		if tenant == a.own {
			own++
		} else {
			a.read.Add(1)
		}
	}
	return own, err
}

func (a *attempt) list(tx pgx.Tx) error {
	own, err := a.reads(tx, "SELECT tenant FROM "+a.table)
	if err == nil && own == 0 && !a.refused {
		a.blind.Add(1)
	}
	return err
}

func (a *attempt) byID(tx pgx.Tx) error {
	own, err := a.reads(tx, "SELECT tenant FROM "+a.table+" WHERE id = $1", 0)
	if err == nil && own != 1 && !a.refused {
		a.blind.Add(1)
	}
	if err == nil {
		_, err = a.reads(tx, "SELECT tenant FROM "+a.table+" WHERE tenant = $1 OR note LIKE '%' || $1 || '%'", a.other)
	}
	return err
}

func (a *attempt) join(tx pgx.Tx) error {
	_, err := a.reads(tx, "SELECT i.tenant FROM shop.orders o JOIN shop.items i ON i.id = o.id WHERE o.id < 10 UNION ALL "+
		"SELECT o.tenant FROM shop.orders o FULL JOIN shop.items i ON i.id = o.id WHERE o.id < 10")
	return err
}

// changes counts a statement that changed more rows than its tenant has there.
func (a *attempt) changes(tx pgx.Tx, query string, args ...any) error {
	if _, err := a.reads(tx, query+" RETURNING tenant", args...); err != nil {
		return err
	}
	return nil
}

func (a *attempt) insert(tx pgx.Tx) error {
	return a.changes(tx, "INSERT INTO "+a.table+" VALUES ($1, $2, $1, 'of ' || $1)", a.own, a.next.Add(1))
}

// refuse is a statement that is refused; the transaction goes on before it.
func (a *attempt) refuse(tx pgx.Tx, query string, args ...any) error {
	inner, err := tx.Begin(a.ctx)
	if err != nil {
		return err
	}
	tag, err := inner.Exec(a.ctx, query, args...)
	if err == nil {
		a.written.Add(tag.RowsAffected())
		return inner.Commit(a.ctx)
	}
	if said, is := errors.AsType[*pgconn.PgError](err); is && said.Code == "42501" { // new row violates row-level security policy
		if a.random.IntN(4) == 0 { // or with all of it
			a.refused = true
			return err
		}
		return inner.Rollback(a.ctx)
	}
	return err
}

func (a *attempt) insertFor(tx pgx.Tx) error {
	return a.refuse(tx, "INSERT INTO "+a.table+" VALUES ($1, $2, $3, '')", a.other, a.next.Add(1), a.own)
}

func (a *attempt) giveAway(tx pgx.Tx) error {
	id := a.next.Add(1)
	if err := a.changes(tx, "INSERT INTO "+a.table+" VALUES ($1, $2, $1, 'to give away')", a.own, id); err != nil {
		return err
	}
	return a.refuse(tx, "UPDATE "+a.table+" SET tenant = $1 WHERE id = $2", a.other, id)
}

func (a *attempt) update(tx pgx.Tx) error {
	return a.changes(tx, "UPDATE "+a.table+" SET writer = $1, note = 'of ' || $1 WHERE id < 10", a.own)
}

func (a *attempt) remove(tx pgx.Tx) error {
	return a.changes(tx, "DELETE FROM "+a.table+" WHERE id >= 1000")
}

func (a *attempt) savepoint(tx pgx.Tx) error {
	inner, err := tx.Begin(a.ctx)
	if err != nil {
		return err
	}
	if err := a.update(inner); err != nil {
		return err
	}
	if a.random.IntN(2) == 0 {
		_, _ = inner.Exec(a.ctx, "SELECT 1/0")
	}
	if err := inner.Rollback(a.ctx); err != nil {
		return err
	}
	return a.list(tx)
}

// copyIn goes another way in: PostgreSQL refuses COPY FROM where row security
// holds, for everybody.
func (a *attempt) copyIn(tx pgx.Tx) error {
	inner, err := tx.Begin(a.ctx)
	if err != nil {
		return err
	}
	n, err := inner.CopyFrom(a.ctx, pgx.Identifier{"shop", "orders"}, []string{"tenant", "id", "writer"},
		pgx.CopyFromRows([][]any{{a.other, a.next.Add(1), a.own}}))
	if err == nil {
		a.written.Add(n)
		return inner.Commit(a.ctx)
	}
	if _, is := errors.AsType[*pgconn.PgError](err); is {
		return inner.Rollback(a.ctx)
	}
	return err
}

func TestNobodyCrosses(t *testing.T) {
	w := newWorld(t, 50)
	w.fill()
	pool := w.pool(w.dsn(), 10)
	plain := func(ctx context.Context, fn func(pgx.Tx) error) error { return pgguard.WithTenant(ctx, pool, fn) }
	s := &suite{world: w, within: plain}
	s.run(10_000)
	s.wasGreen()
	w.turnsRed(plain, map[string][2]string{
		"row security is off":    {"ALTER TABLE shop.items DISABLE ROW LEVEL SECURITY", "ALTER TABLE shop.items ENABLE ROW LEVEL SECURITY"},
		"a policy opens all":     {"DROP POLICY tenantguard_only ON shop.orders; CREATE POLICY late ON shop.orders USING (true)", "DROP POLICY late ON shop.orders"},
		"one policy was dropped": {"DROP POLICY tenantguard ON shop.items", ""},
	})
}

// wasGreen fails the test if something crossed, or too little was tried.
func (s *suite) wasGreen() {
	s.Helper()
	s.Log(s)
	if !s.green() {
		s.Errorf("crossed: %s", s)
	}
	for _, what := range []string{
		"commit", "undo", "panic", "cancel",
		"list", "by id", "join", "insert", "insert for another", "update all", "give away", "delete", "savepoint", "copy",
	} {
		if s.done[what] < 100 {
			s.Errorf("%q was done %d times only", what, s.done[what])
		}
	}
}

// turnsRed holds that the suite sees what it is there for: each break, which is
// undone and repaired after it.
func (w *world) turnsRed(within within, breaks map[string][2]string) {
	w.Helper()
	for what, statements := range breaks {
		w.super(statements[0])
		s := &suite{world: w, within: within}
		s.next.Store(1_000_000)
		s.run(200)
		w.Logf("%s: %s", what, s)
		if blind := what == "one policy was dropped"; blind && s.blind.Load() == 0 || !blind && s.crossings() == 0 {
			w.Errorf("%s, and nothing was seen: %s", what, s)
		}
		w.super("TRUNCATE shop.orders, shop.items")
		w.fill()
		if statements[1] != "" {
			w.super(statements[1])
		}
		script, err := policies(w).SQL()
		w.must(err)
		w.super(script) // repairs
	}
	again := &suite{world: w, within: within}
	again.next.Store(2_000_000)
	again.run(200)
	if !again.green() {
		w.Errorf("after the repair: %s", again)
	}
}
