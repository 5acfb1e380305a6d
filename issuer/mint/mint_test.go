package mint

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

var t0 = time.Date(2030, 1, 1, 0, 0, 0, 500_000_000, time.UTC)

// pen signs by writing the payload down.
type pen struct {
	signed atomic.Int32
	err    error
}

func (p *pen) KeyID() string                 { return "pen" }
func (p *pen) Ref() store.Ref                { return store.Ref{Table: "ring", Key: "pen"} }
func (p *pen) Active() (Signer, error)       { return p, nil }
func (p *pen) Refresh(context.Context) error { return nil }
func (p *pen) Sign(_ context.Context, payload []byte, typ string) (string, error) {
	p.signed.Add(1)
	return typ + ":" + string(payload), p.err
}

func open(t testing.TB) store.Store {
	t.Helper()
	st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "db"), Writer: "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func newMint(t testing.TB, st store.Store, now func() time.Time) (*Mint, *pen) {
	p := &pen{}
	return New(st, p, credential.MustIssuerURL("https://broker.example"), now), p
}

func at(d time.Duration) func() time.Time { return func() time.Time { return t0.Add(d) } }

func decision() Decision {
	return Decision{
		Account: credential.MustAccountID("worker"), Audience: credential.MustAudience("orders"), Tenant: credential.MustTenant("acme"),
		Scopes: credential.MustScopes("read"), Lifetime: credential.MustLifetime(time.Minute), Grant: "g_1", Method: "test",
	}
}

func TestApprovalSignsOnce(t *testing.T) {
	m, p := newMint(t, open(t), at(0))
	a, err := m.Commit(t.Context(), decision())
	if err != nil {
		t.Fatal(err)
	}
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, c, err := m.Sign(t.Context(), a); err == nil && c.ID == a.ID() {
				won.Add(1)
			} else if !errors.Is(err, ErrSpent) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || p.signed.Load() != 1 {
		t.Errorf("%d won, %d signatures", won.Load(), p.signed.Load())
	}
}

func TestNothingElseIsAnApproval(t *testing.T) {
	m, p := newMint(t, open(t), at(0))
	for _, a := range []*Approval{nil, {}} {
		if _, _, err := m.Sign(t.Context(), a); !errors.Is(err, ErrSpent) {
			t.Errorf("%v", err)
		}
	}
	if p.signed.Load() != 0 {
		t.Error("signed")
	}
}

func TestFailedSignatureSpendsTheApproval(t *testing.T) {
	m, p := newMint(t, open(t), at(0))
	p.err = errors.New("the home is away")
	a, err := m.Commit(t.Context(), decision())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Sign(t.Context(), a); !errors.Is(err, p.err) {
		t.Errorf("%v", err)
	}
	p.err = nil
	if _, _, err := m.Sign(t.Context(), a); !errors.Is(err, ErrSpent) {
		t.Errorf("%v", err)
	}
}

func TestTokenDeadOnArrivalIsNotIssued(t *testing.T) {
	for name, scope := range map[string]revocation.Scope{
		"everything": revocation.Everything(), "account": revocation.Account(credential.MustAccountID("worker")),
		"tenant": revocation.Tenant(credential.MustTenant("acme")),
	} {
		st := open(t)
		if err := st.Update(t.Context(), func(tx store.Tx) error { return revocation.SetEpoch(tx, scope, t0) }); err != nil {
			t.Fatal(err)
		}
		for d, refused := range map[time.Duration]bool{0: true, 499 * time.Millisecond: true, 500 * time.Millisecond: false} {
			m, _ := newMint(t, st, at(d))
			if _, err := m.Commit(t.Context(), decision()); errors.Is(err, ErrRevoked) != refused || (err == nil) == refused {
				t.Errorf("%s after %v: %v", name, d, err)
			}
		}
	}
}

// The same for the epoch that account and tenant keep themselves, whichever of
// the two kinds is later.
func TestTokenWithinItsHoldersEpochIsNotIssued(t *testing.T) {
	for revoked, refused := range map[time.Duration]bool{0: true, 2 * time.Second: false} {
		st := open(t)
		if err := st.Update(t.Context(), func(tx store.Tx) error {
			return revocation.SetEpoch(tx, revocation.Everything(), t0.Add(-revoked))
		}); err != nil {
			t.Fatal(err)
		}
		d := decision()
		for _, d.After = range []time.Time{t0.Truncate(time.Second), t0.Add(-2 * time.Second)} {
			dead := refused || d.After.Equal(t0.Truncate(time.Second))
			m, _ := newMint(t, st, at(499*time.Millisecond))
			if _, err := m.Commit(t.Context(), d); errors.Is(err, ErrRevoked) != dead || (err == nil) == dead {
				t.Errorf("revoked %v before, epoch %v: %v", revoked, d.After, err)
			}
			m, _ = newMint(t, st, at(500*time.Millisecond))
			if _, err := m.Commit(t.Context(), d); err != nil {
				t.Errorf("a second later: %v", err)
			}
		}
	}
}

func TestConsume(t *testing.T) {
	m, _ := newMint(t, open(t), at(0))
	use := &Use{Key: "k", Until: t0.Add(time.Minute)}
	if err := m.Consume(t.Context(), nil, nil); err != nil {
		t.Error(err)
	}
	own := errors.New("own")
	if err := m.Consume(t.Context(), use, func(store.Tx) error { return own }); !errors.Is(err, own) {
		t.Errorf("%v", err)
	}
	ran := false
	if err := m.Consume(t.Context(), use, func(store.Tx) error { ran = true; return nil }); err != nil || !ran {
		t.Errorf("used up by what failed: %v", err)
	}
	ran = false
	if err := m.Consume(t.Context(), use, func(store.Tx) error { ran = true; return nil }); !errors.Is(err, store.ErrReplayed) || ran {
		t.Errorf("%v", err)
	}
	if replayed, err := m.Refuse(t.Context(), use, audit.Record{Time: t0, Type: "token.denied", Decision: audit.Deny}); err != nil || !replayed {
		t.Errorf("%v %v", replayed, err)
	}
}

// From Until on it may be forgotten that something was used: it is too late, by
// the clock of the commit, and nothing is written.
func TestNothingIsUsedUpTooLate(t *testing.T) {
	st := open(t)
	until := t0.Add(time.Minute)
	record := audit.Record{Time: t0, Type: "token.denied", Decision: audit.Deny}
	for name, do := range map[string]func(m *Mint, use *Use) error{
		"commit": func(m *Mint, use *Use) error {
			d := decision()
			d.Use = use
			_, err := m.Commit(t.Context(), d)
			return err
		},
		"refuse":  func(m *Mint, use *Use) error { _, err := m.Refuse(t.Context(), use, record); return err },
		"consume": func(m *Mint, use *Use) error { return m.Consume(t.Context(), use, nil) },
	} {
		now := t0
		m, _ := newMint(t, queue{st, func() { now = until }}, func() time.Time { return now })
		if err := do(m, &Use{Key: name, Until: until}); !errors.Is(err, ErrLate) {
			t.Errorf("%s: %v", name, err)
		}
		m, _ = newMint(t, queue{st, func() { now = until.Add(-time.Millisecond) }}, func() time.Time { return now })
		if err := do(m, &Use{Key: name, Until: until}); err != nil {
			t.Errorf("%s, just in time: %v", name, err)
		}
	}
	if n := records(t, st); n != 2 {
		t.Errorf("%d records, of one commit and one refusal", n)
	}
}

// queue is a store whose commits wait.
type queue struct {
	store.Store
	meanwhile func()
}

func (q queue) Update(ctx context.Context, fn func(store.Tx) error) error {
	q.meanwhile()
	return q.Store.Update(ctx, fn)
}

func records(t *testing.T, st store.Store) (n int) {
	t.Helper()
	if err := st.View(t.Context(), func(r store.Reader) error {
		for _, err := range r.Log(0) {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// A tenant that is asked for again and again does not cost a write each time.
func TestFanOutRowIsRewrittenOncePerEighthOfTheWindow(t *testing.T) {
	st := open(t)
	d := decision()
	d.FanOut = &registry.FanOut{Tenants: 1, Window: 8 * time.Minute}
	version := func(after time.Duration) (v uint64) {
		m, _ := newMint(t, st, at(after))
		if _, err := m.Commit(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if err := st.View(t.Context(), func(r store.Reader) error {
			row, err := r.Get(fanOuts, store.Key("g_1", "worker"))
			v = row.Version
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := version(0)
	if version(30*time.Second) != first || version(time.Minute) != first {
		t.Error("rewritten within an eighth of the window")
	}
	if version(61*time.Second) == first {
		t.Error("not rewritten after an eighth of the window")
	}
}

func TestFaultsRelease(t *testing.T) {
	failing := storetest.NewFailing(open(t))
	m, _ := newMint(t, failing, at(0))
	failing.Fail(storetest.Failed, -1)
	if _, err := m.Commit(t.Context(), decision()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if _, err := m.Refuse(t.Context(), nil, audit.Record{Time: t0}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestSpoiledFanOutRowDenies(t *testing.T) {
	st := open(t)
	if err := st.Update(t.Context(), func(tx store.Tx) error {
		_, err := tx.Put(fanOuts, store.Key("g_1", "worker"), []byte("spoiled row"), 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	m, _ := newMint(t, st, at(0))
	d := decision()
	d.FanOut = &registry.FanOut{Tenants: 1, Window: time.Minute}
	if _, err := m.Commit(t.Context(), d); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if _, err := SweepFanOut(t.Context(), st, t0, ""); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestSweepFanOutGoesOnWhereItStopped(t *testing.T) {
	st := open(t)
	if err := st.Update(t.Context(), func(tx store.Tx) error {
		for n := range sweepRows + 5 {
			until := t0.Unix() + int64(n%2) // every second one is over
			if _, err := tx.Put(fanOuts, fmt.Sprintf("%05d", n), encodeVisits([]visit{{"acme", until}}), 0); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	next, err := SweepFanOut(t.Context(), st, t0, "")
	if err != nil || next == "" {
		t.Fatalf("%q %v", next, err)
	}
	if next, err = SweepFanOut(t.Context(), st, t0, next); err != nil || next != "" {
		t.Fatalf("%q %v", next, err)
	}
	left := 0
	_ = st.View(t.Context(), func(r store.Reader) error {
		for _, err := range r.Scan(fanOuts, "", "") {
			if err != nil {
				return err
			}
			left++
		}
		return nil
	})
	if left != (sweepRows+5)/2 {
		t.Errorf("%d rows left", left)
	}
}

// At no moment has an account got more distinct tenants within the window than
// its grant allows; and what it got within the window it can get again.
func TestFanOutProperty(t *testing.T) {
	st := open(t)
	grants := 0
	rapid.Check(t, func(rt *rapid.T) {
		grants++
		limit := rapid.IntRange(1, 4).Draw(rt, "limit")
		window := 80 * time.Second
		d := decision()
		d.Grant, d.FanOut = fmt.Sprint("g_", grants), &registry.FanOut{Tenants: limit, Window: window}
		type got struct {
			tenant string
			at     time.Duration
		}
		var history []got
		now := time.Duration(0)
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			now += time.Duration(rapid.IntRange(0, 60).Draw(rt, "pause")) * time.Second
			tenant := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(rt, "tenant")
			d.Tenant = credential.MustTenant(tenant)
			m, _ := newMint(t, st, at(now))
			_, err := m.Commit(t.Context(), d)
			var recent, lingering []string
			for _, g := range history {
				if now-g.at < window && !slices.Contains(recent, g.tenant) {
					recent = append(recent, g.tenant)
				}
				if now-g.at <= window+window/8+time.Second && !slices.Contains(lingering, g.tenant) {
					lingering = append(lingering, g.tenant)
				}
			}
			switch {
			case err == nil:
				history = append(history, got{tenant, now})
				if !slices.Contains(recent, tenant) && len(recent) >= limit {
					rt.Fatalf("%s on top of %v, limit %d", tenant, recent, limit)
				}
			case !errors.Is(err, ErrFanOut):
				rt.Fatal(err)
			case slices.Contains(recent, tenant) || len(lingering) < limit:
				rt.Fatalf("%s refused with %v of %d", tenant, lingering, limit)
			}
		}
	})
}

func FuzzFanOutRow(f *testing.F) {
	f.Add(encodeVisits([]visit{{"acme", 1}, {"globex", 2}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		visits, err := decodeVisits(b)
		if err == nil && string(encodeVisits(visits)) != string(b) {
			t.Errorf("%x is read as %v", b, visits)
		}
	})
}
