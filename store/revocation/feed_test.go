package revocation

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

var acme, globex = credential.MustTenant("acme"), credential.MustTenant("globex")

func read(t *testing.T, st store.Store, v View, after uint64, limit int) (p Page) {
	t.Helper()
	if err := st.View(t.Context(), func(r store.Reader) (err error) {
		p, err = Read(r, v, after, limit)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return p
}

func names(p Page) (all []string) {
	for _, e := range p.Entries {
		all = append(all, string(e.Kind)+" "+e.ID)
	}
	slices.Sort(all)
	return all
}

// fill writes one of each kind for acme, and one for globex.
func fill(t *testing.T, st store.Store) {
	t.Helper()
	update(t, st, func(tx store.Tx) error {
		other := of(credential.MustAccountID("b"), "theirs", time.Minute)
		other.Tenant = globex
		_, first := Add(tx, t0, of(credential.MustAccountID("a"), "ours", time.Minute), credential.MustAccountID("a"))
		_, second := Add(tx, t0, other, other.ClientID)
		_, third := AddChain(tx, t0, acme, "chain", credential.MustAccountID("a"))
		_, fourth := AddChain(tx, t0, globex, "their-chain", credential.MustAccountID("a"))
		return errors.Join(first, second, third, fourth, SetEpoch(tx, Tenant(acme), t0), SetEpoch(tx, Tenant(globex), t0),
			SetEpoch(tx, Account(credential.MustAccountID("met")), t0), SetEpoch(tx, Account(credential.MustAccountID("stranger")), t0),
			AddKeys(tx, t0, "kid"), SetEpoch(tx, Everything(), t0.Add(-time.Hour)))
	})
}

func TestAViewShowsItsTenantOnly(t *testing.T) {
	st := open(t)
	update(t, st, func(tx store.Tx) error {
		c := of(credential.MustAccountID("met"), "x", time.Minute)
		return errors.Join(Reach(tx, acme, c), Reach(tx, credential.System, of(credential.MustAccountID("stranger"), "y", time.Minute)))
	})
	fill(t, st)
	all := []string{"account met", "account stranger", "all ", "chain chain", "chain their-chain", "key kid",
		"tenant acme", "tenant globex", "token ours", "token theirs"}
	if got := names(read(t, st, Whole(), 0, 100)); !slices.Equal(got, all) {
		t.Errorf("the whole: %v", got)
	}
	ours := []string{"account met", "all ", "chain chain", "key kid", "tenant acme", "token ours"}
	if got := names(read(t, st, Within(acme), 0, 100)); !slices.Equal(got, ours) {
		t.Errorf("acme: %v", got)
	}
	theirs := []string{"all ", "chain their-chain", "key kid", "tenant globex", "token theirs"}
	if got := names(read(t, st, Within(globex), 0, 100)); !slices.Equal(got, theirs) {
		t.Errorf("globex: %v", got)
	}
	if got := names(read(t, st, View{}, 0, 100)); len(got) != 0 {
		t.Errorf("the zero view: %v", got)
	}
}

func TestReachCoversEveryPartyAsLongAsTokensLive(t *testing.T) {
	st := open(t)
	update(t, st, func(tx store.Tx) error { return Reach(tx, acme, token("x")) })
	met := func() (all []string) {
		update(t, st, func(tx store.Tx) error {
			all = nil
			for _, id := range []string{"subject", "client", "actor", "first", "nobody"} {
				if met, err := Within(acme).met(tx, Entry{Kind: AccountEpoch, ID: id}); err != nil {
					return err
				} else if met {
					all = append(all, id)
				}
			}
			return nil
		})
		return all
	}
	parties := []string{"subject", "client", "actor", "first"}
	if got := met(); !slices.Equal(got, parties) {
		t.Errorf("met %v", got)
	}
	sweepAll(t, st, t0.Add(5*time.Minute+credential.MaxLeeway))
	if got := met(); !slices.Equal(got, parties) {
		t.Errorf("forgotten while a token may be alive: %v", got)
	}
	longer := token("y")
	longer.Expires = t0.Add(time.Hour)
	update(t, st, func(tx store.Tx) error { return Reach(tx, acme, longer) })
	sweepAll(t, st, t0.Add(time.Hour+credential.MaxLeeway))
	if got := met(); !slices.Equal(got, parties) {
		t.Errorf("a later token's are forgotten: %v", got)
	}
	sweepAll(t, st, t0.Add(2*time.Hour))
	if got := met(); len(got) != 0 {
		t.Errorf("kept for ever: %v", got)
	}
	left := 0
	for _, table := range []store.Table{reach, byExpiry} {
		left += rows(t, st, table)
	}
	if left != 0 {
		t.Errorf("%d rows left", left)
	}
}

func rows(t *testing.T, st store.Store, table store.Table) (n int) {
	t.Helper()
	if err := st.View(t.Context(), func(r store.Reader) error {
		for _, err := range r.Scan(table, "", "") {
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

// Between the steps in which it is kept, a token writes nothing.
func TestReachIsWrittenRarely(t *testing.T) {
	st := open(t)
	version := func() (v uint64) {
		update(t, st, func(tx store.Tx) error {
			row, err := tx.Get(reach, store.Key("acme", "client"))
			v = row.Version
			return err
		})
		return v
	}
	update(t, st, func(tx store.Tx) error { return Reach(tx, acme, token("x")) })
	first := version()
	soon := token("y")
	soon.Expires = soon.Expires.Add(reachStep)
	update(t, st, func(tx store.Tx) error { return Reach(tx, acme, soon) })
	if version() != first {
		t.Error("written again within a step")
	}
	soon.Expires = soon.Expires.Add(time.Second)
	update(t, st, func(tx store.Tx) error { return Reach(tx, acme, soon) })
	if version() == first {
		t.Error("not prolonged")
	}
}

func TestEntriesAreReadInStretches(t *testing.T) {
	st := open(t)
	fill(t, st)
	for _, v := range []View{Whole(), Within(acme)} {
		whole := read(t, st, v, 0, 100)
		var got []Entry
		after := uint64(0)
		for {
			p := read(t, st, v, after, 2)
			got, after = append(got, p.Entries...), p.Through
			if !p.More {
				break
			}
			if len(p.Entries) != 2 {
				t.Fatalf("%d entries, and more", len(p.Entries))
			}
		}
		if !slices.Equal(got, whole.Entries) || after != whole.Through {
			t.Errorf("in stretches %v, at once %v", got, whole.Entries)
		}
		if !slices.IsSortedFunc(got, func(a, b Entry) int { return int(a.Seq) - int(b.Seq) }) {
			t.Error("not in order")
		}
		if p := read(t, st, v, whole.Through, 10); len(p.Entries) != 0 || p.Through != whole.Through {
			t.Errorf("after the end: %+v", p)
		}
	}
}

// A later epoch takes the place of an earlier one; the same or an older one is
// no news.
func TestALaterEpochTakesTheEarliersPlace(t *testing.T) {
	st := open(t)
	set := func(at time.Duration) Page {
		update(t, st, func(tx store.Tx) error { return SetEpoch(tx, Tenant(acme), t0.Add(at)) })
		return read(t, st, Whole(), 0, 10)
	}
	first := set(0)
	for _, at := range []time.Duration{0, 999 * time.Millisecond, -time.Hour} {
		if p := set(at); p.Through != first.Through {
			t.Errorf("at %v: news", at)
		}
	}
	if p := set(time.Second); len(p.Entries) != 1 || p.Entries[0].Epoch != t0.Unix()+1 || p.Through <= first.Through {
		t.Errorf("%+v", p)
	}
	sweepAll(t, st, t0.Add(credential.MaxTicketLifetime+time.Hour))
	for _, table := range []store.Table{feed, epochs, byExpiry} {
		if n := rows(t, st, table); n != 0 {
			t.Errorf("%d rows of %s left", n, table)
		}
	}
}

// How long verifiers are told: as long as one with the longest leeway could take
// a token that it hits.
func TestHowLongEachKindIsTold(t *testing.T) {
	for kind, c := range map[Kind]struct {
		do   func(tx store.Tx) error
		told time.Duration
	}{
		Token: {func(tx store.Tx) error {
			_, err := Add(tx, t0, of(credential.MustAccountID("a"), "x", 7*time.Minute), credential.MustAccountID("a"))
			return err
		}, 8 * time.Minute},
		Chain: {func(tx store.Tx) error {
			_, err := AddChain(tx, t0, acme, "x", credential.MustAccountID("a"))
			return err
		}, 61 * time.Minute},
		AccountEpoch: {func(tx store.Tx) error { return SetEpoch(tx, Account(credential.MustAccountID("a")), t0) }, 61 * time.Minute},
		TenantEpoch:  {func(tx store.Tx) error { return SetEpoch(tx, Tenant(acme), t0) }, 61 * time.Minute},
		All:          {func(tx store.Tx) error { return SetEpoch(tx, Everything(), t0) }, 61 * time.Minute},
		Key:          {func(tx store.Tx) error { return AddKeys(tx, t0, "x") }, 7*24*time.Hour + time.Hour},
	} {
		st := open(t)
		update(t, st, c.do)
		sweepAll(t, st, t0.Add(c.told))
		if got := read(t, st, Whole(), 0, 10).Entries; len(got) != 1 || got[0].Kind != kind {
			t.Errorf("%s: gone too early: %v", kind, got)
		}
		sweepAll(t, st, t0.Add(c.told+2*time.Second))
		if got := read(t, st, Whole(), 0, 10).Entries; len(got) != 0 {
			t.Errorf("%s: told for ever", kind)
		}
	}
}

// The broker itself remembers a chain as long as a ticket of it can come back.
func TestAChainIsRememberedAsLongAsItsTickets(t *testing.T) {
	st := open(t)
	update(t, st, func(tx store.Tx) error {
		if o, err := AddChain(tx, t0, acme, "txn", credential.MustAccountID("a")); o != Added || err != nil {
			t.Errorf("%v %v", o, err)
		}
		if o, err := AddChain(tx, t0, acme, "txn", credential.MustAccountID("a")); o != Already || err != nil {
			t.Errorf("again: %v %v", o, err)
		}
		return nil
	})
	ticket := token("x")
	ticket.Txn, ticket.IssuedAt = "txn", t0.Add(time.Hour)
	other := ticket
	other.Tenant = globex
	sweepAll(t, st, t0.Add(credential.MaxTicketLifetime+credential.MaxLeeway))
	if !revoked(t, st, ticket) || revoked(t, st, other) {
		t.Error("not exactly the tenant's chain")
	}
	sweepAll(t, st, t0.Add(credential.MaxTicketLifetime+credential.MaxLeeway+2*time.Second))
	if revoked(t, st, ticket) || rows(t, st, counts) != 0 {
		t.Error("kept for ever")
	}
}

func TestBoundOfAllAccounts(t *testing.T) {
	st := open(t)
	a := credential.MustAccountID("a")
	update(t, st, func(tx store.Tx) error {
		if _, err := tx.Put(counts, allAccounts, encode(MaxEntries), 0); err != nil {
			return err
		}
		if _, err := AddChain(tx, t0, acme, "txn", a); !errors.Is(err, ErrFull) {
			t.Errorf("a chain: %v", err)
		}
		if _, err := Add(tx, t0, of(credential.MustAccountID("b"), "theirs", time.Minute), a); !errors.Is(err, ErrFull) {
			t.Errorf("another's token: %v", err)
		}
		if o, err := Add(tx, t0, of(a, "own", time.Minute), a); o != Collapsed || err != nil {
			t.Errorf("an own token: %v %v", o, err)
		}
		if n, _, _ := number(tx, counts, "a"); n != 0 {
			t.Errorf("%d counted that are not there", n)
		}
		return nil
	})
}

// Workloads, of whichever tenant, can't take the room of operators.
func TestOperatorsHaveRoomOfTheirOwn(t *testing.T) {
	st := open(t)
	a, b := credential.MustAccountID("a"), credential.MustAccountID("b")
	update(t, st, func(tx store.Tx) error {
		if _, err := tx.Put(counts, allAccounts, encode(MaxEntries-forOperators), 0); err != nil {
			return err
		}
		if _, err := Add(tx, t0, of(b, "theirs", time.Minute), a); !errors.Is(err, ErrFull) {
			t.Errorf("another's token: %v", err)
		}
		if o, err := EndToken(tx, t0, of(b, "theirs", time.Minute), a); o != Added || err != nil {
			t.Errorf("by an operator: %v %v", o, err)
		}
		if o, err := AddChain(tx, t0, acme, "txn", a); o != Added || err != nil {
			t.Errorf("a chain: %v %v", o, err)
		}
		return nil
	})
}

// A follower of the lost store has seen places that the backup has not. The
// restored feed goes on after all of them, so that it is told everything.
func TestARestoredFeedGoesOnAfterTheLostOne(t *testing.T) {
	lost, backup := open(t), open(t)
	for n := range 50 {
		update(t, lost, func(tx store.Tx) error {
			_, err := Add(tx, t0, of(credential.MustAccountID("a"), fmt.Sprint(n), time.Minute), credential.MustAccountID("a"))
			return err
		})
	}
	ahead := read(t, lost, Whole(), 0, 100).Through
	if err := RevokeAllBefore(t.Context(), backup, t0.Add(-restoreLead+time.Second), audit.Record{Time: t0}); err != nil {
		t.Fatal(err)
	}
	p := read(t, backup, Whole(), ahead, 10)
	if len(p.Entries) != 1 || p.Entries[0].Kind != All || p.Through <= ahead {
		t.Errorf("after %d: %+v", ahead, p)
	}
}

// A tenant's follower is ahead where its place lies in the time to come and it sees
// nothing there, whatever others do; never at what it was given, nor where what it
// was given has left.
func TestWhoIsAheadOfTheFeed(t *testing.T) {
	st := open(t)
	ahead := func(v View, after uint64, now time.Time) (is bool) {
		t.Helper()
		if err := st.View(t.Context(), func(r store.Reader) (err error) {
			is, err = Ahead(r, v, after, now)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return is
	}
	chain := func(tenant credential.Tenant, at time.Time) uint64 {
		update(t, st, func(tx store.Tx) error {
			_, err := AddChain(tx, at, tenant, fmt.Sprint(tenant, at), credential.MustAccountID("a"))
			return err
		})
		return read(t, st, Whole(), 0, 1000).Through
	}
	ours := chain(acme, t0)
	for now, want := range map[time.Time]bool{t0.Add(-time.Hour): true, t0: true, t0.Add(clocks - time.Second): true, t0.Add(clocks + time.Second): false} {
		if ahead(Within(globex), ours, now) != want || ahead(Within(globex), ours+1, now) != want {
			t.Errorf("at another's place, %v after it: not %t", now.Sub(t0), want)
		}
		if ahead(Within(acme), ours, now) || ahead(Within(acme), ours-1, now) || ahead(Within(acme), 0, now) {
			t.Errorf("at what it was given, %v after it", now.Sub(t0))
		}
	}
	theirs := chain(globex, t0.Add(time.Second))
	if !ahead(Within(acme), ours+1, t0) || !ahead(Within(acme), theirs, t0) || ahead(Within(globex), theirs, t0) {
		t.Error("what others revoke makes a difference")
	}
	if ahead(Whole(), theirs, t0.Add(time.Hour)) || !ahead(Whole(), theirs+1, t0.Add(time.Hour)) {
		t.Error("who sees everything knows the newest place")
	}
	update(t, st, func(tx store.Tx) error { return AddKeys(tx, t0.Add(2*time.Second), "kid") })
	if everyone := theirs + 1e6; ahead(Within(acme), ours+1, t0) || ahead(Within(acme), everyone, t0) || !ahead(Within(acme), everyone+1, t0) {
		t.Error("keys are seen by everybody")
	}
	// What it was given is said no more: no reason to tell it that the store is
	// another one.
	later := t0.Add(8 * 24 * time.Hour)
	sweepAll(t, st, later)
	if ahead(Within(acme), theirs+1e6, later) {
		t.Error("ahead by what has left")
	}
}

func TestPlacesGrowWhateverTheClockDoes(t *testing.T) {
	st := open(t)
	last := uint64(0)
	for _, at := range []time.Duration{0, 0, -time.Hour, time.Hour, 0} {
		update(t, st, func(tx store.Tx) error { return AddKeys(tx, t0.Add(at), "a", "b") })
		p := read(t, st, Whole(), last, 10)
		if len(p.Entries) != 2 || p.Through <= last {
			t.Errorf("%v: %+v after %d", at, p, last)
		}
		last = p.Through
	}
	if last > uint64(t0.Add(time.Hour).UnixMicro())+4 {
		t.Error("places run away from the clock")
	}
}

func TestAFeedThatCantBeReadIsAnError(t *testing.T) {
	for key, value := range map[string]string{place(1): "{", "zz": `{"k":"all"}`, place(2): `{"k":"token","t":"a b"}`} {
		st := open(t)
		update(t, st, func(tx store.Tx) error {
			_, err := tx.Put(feed, key, []byte(value), 0)
			_, last := tx.Put(sequence, sequenceRow, encode(10), 0)
			return errors.Join(err, last)
		})
		err := st.View(t.Context(), func(r store.Reader) error {
			_, err := Read(r, Whole(), 0, 10)
			return err
		})
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s %s: %v", key, value, err)
		}
	}
}
