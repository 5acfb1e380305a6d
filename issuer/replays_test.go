package issuer

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/store"
)

// queued is a store before which something happens while a commit waits.
type queued struct {
	store.Store
	meanwhile func()
	commits   int
}

func (q *queued) Update(ctx context.Context, fn func(store.Tx) error) error {
	q.commits++
	if do := q.meanwhile; do != nil {
		do()
	}
	return q.Store.Update(ctx, fn)
}

func queueing(q *queued) wrapped {
	return func(st store.Store) store.Store { q.Store = st; return q }
}

// An assertion that dies while its commit waits is refused: that it was used
// may be forgotten by then.
func TestAUseIsNotForgottenBetweenDecisionAndCommit(t *testing.T) {
	q := &queued{}
	w := standardOn(t, queueing(q))
	lives := map[string]any{"exp": w.clock.now().Unix() + 60}
	token := w.token(w.asking("worker", nil)).AccessToken
	used := map[string]TokenRequest{}
	for _, name := range []string{"granted", "denied", "introspected", "revoked", "of another client_id"} {
		used[name] = w.asking("worker", want{"client_assertion": w.assertion("worker", lives)})
		w.token(used[name])
	}
	used["denied"].Form.Set("tenant", "initech")
	used["of another client_id"].Form.Set("client_id", "orders-svc")
	end := w.clock.now().Add(60*time.Second + credential.Leeway)
	records := len(w.records())
	for name, r := range used {
		w.clock.add(end.Add(-time.Millisecond).Sub(w.clock.now()))
		q.meanwhile = func() { w.clock.add(2 * time.Millisecond) }
		var err error
		inquiry := r.Request
		inquiry.Form.Set("token", token)
		switch name {
		case "introspected":
			_, err = w.iss.Introspect(t.Context(), IntrospectRequest{inquiry})
		case "revoked":
			err = w.iss.Revoke(t.Context(), RevokeRequest{inquiry})
		default:
			_, err = w.iss.Token(t.Context(), r)
		}
		q.meanwhile = nil
		if err == nil {
			t.Fatalf("%s: a used assertion was taken again", name)
		}
		if e := asError(t, err); e.Code != InvalidClient || e.Reason != "expired" {
			t.Errorf("%s: %v", name, e)
		}
	}
	if n := len(w.records()) - records; n != 0 {
		t.Errorf("%d records", n)
	}
	w.must(w.iss.flush(t.Context()))
	counted := uint64(0)
	for _, l := range w.records()[records:] {
		counted += l.Count
	}
	if counted != uint64(len(used)) {
		t.Errorf("%d refusals counted", counted)
	}
}

// Whoever has got hold of an assertion after its use can neither slow its
// account down, nor fill the audit trail, nor keep the disk busy.
func TestReplaysCostTheAccountNothing(t *testing.T) {
	q := &queued{}
	slow := Rate{PerSecond: 0.001, Burst: 3}
	w := standardOn(t, queueing(q), limited(Limits{Account: slow, Tenant: slow}))
	one, two := w.asking("worker", nil), w.asking("worker", nil)
	w.token(one)
	w.token(two)
	token := want{"token": "x", "client_assertion": "-"}
	inquiry := func(r TokenRequest) Request {
		about := w.asking("worker", token).Request
		about.Form.Set("client_assertion", r.Form.Get("client_assertion"))
		return about
	}
	records, commits := len(w.records()), q.commits
	for n := range 50 {
		if e := w.refusal(one); e.Code != InvalidClient || e.Reason != "assertion_replayed" {
			t.Fatalf("%v", e)
		}
		if _, err := w.iss.Introspect(t.Context(), IntrospectRequest{inquiry(two)}); asError(t, err).Reason != "assertion_replayed" {
			t.Fatalf("%d: %v", n, err)
		}
		if err := w.iss.Revoke(t.Context(), RevokeRequest{inquiry(one)}); asError(t, err).Reason != "assertion_replayed" {
			t.Fatalf("%d: %v", n, err)
		}
		other := w.asking("worker", want{"client_assertion": one.Form.Get("client_assertion"), "client_id": "orders-svc"})
		if e := w.refusal(other); e.Reason != "assertion_replayed" {
			t.Fatalf("%v", e)
		}
	}
	if n := len(w.records()) - records; n != 2 {
		t.Errorf("%d records of two replayed assertions", n)
	}
	if n := q.commits - commits; n > 3 {
		t.Errorf("%d commits for two replayed assertions", n)
	}
	w.token(w.asking("worker", nil)) // the third
	if e := w.refusal(w.asking("worker", nil)); e.Reason != "account_rate" {
		t.Errorf("more is given back than was taken: %v", e)
	}
	for n := range 3 {
		if _, err := w.iss.Introspect(t.Context(), IntrospectRequest{w.about("worker", "x")}); err != nil {
			t.Errorf("inquiry %d: %v", n, err)
		}
	}
	if _, err := w.iss.Introspect(t.Context(), IntrospectRequest{w.about("worker", "x")}); asError(t, err).Reason != "account_rate" {
		t.Errorf("more is given back than was taken: %v", err)
	}
}

// What a replay took of the tenant's rate is given back too.
func TestReplaysCostTheTenantNothing(t *testing.T) {
	w := standard(t, limited(Limits{Tenant: Rate{PerSecond: 0.001, Burst: 2}}))
	r := w.asking("worker", nil)
	w.token(r)
	_ = w.refusal(r)
	w.token(w.asking("worker", nil))
	if e := w.refusal(w.asking("worker", nil)); e.Reason != "tenant_rate" {
		t.Errorf("%v", e)
	}
}

func TestReplaysAreFailuresOfTheirNeighbourhood(t *testing.T) {
	w := standard(t, limited(Limits{Failures: Rate{PerSecond: 1, Burst: 3}}))
	r := w.asking("worker", nil)
	w.token(r)
	r.IP = netip.MustParseAddr("198.51.100.1")
	slowed := false
	for range 6 {
		slowed = w.refusal(r).Code == SlowDown
	}
	if !slowed {
		t.Error("replays are not slowed down")
	}
	w.token(w.asking("worker", nil))
}

// A request is counted once, however often it is decided.
func TestARequestDecidedAnewCountsOnce(t *testing.T) {
	two := Rate{PerSecond: 0.001, Burst: 2}
	for reason, limits := range map[string]Limits{"account_rate": {Account: two}, "tenant_rate": {Tenant: two}} {
		w := standard(t, limited(limits))
		tries := 0
		w.ring.onActive = func() {
			if tries++; tries < 3 {
				w.ring.touch(t)
			}
		}
		w.token(w.asking("worker", nil))
		if tries != 3 {
			t.Fatalf("%d tries", tries)
		}
		w.token(w.asking("worker", nil))
		if e := w.refusal(w.asking("worker", nil)); e.Reason != reason {
			t.Errorf("%v", e)
		}
	}
}

func TestReplaysAreKnownUntilTheAssertionIsDead(t *testing.T) {
	r, end := newReplays(), time.Unix(1000, 0)
	use := &mint.Use{Key: "k", Until: end}
	r.add(use)
	if !r.has(use, end.Add(-1)) || r.has(use, end) || r.has(&mint.Use{Key: "other"}, end.Add(-1)) {
		t.Error("not exactly the replayed one, while it lives")
	}
}

// Nobody makes the memory grow: each bound with its number.
func TestMemoriesAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	replayed, vouchers := newReplays(), newVouchedCache()
	l, err := newLimiter[string](Rate{PerSecond: 1, Burst: 1}, Rate{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20_000 {
		key := string(binary.BigEndian.AppendUint32(nil, uint32(n)))
		replayed.add(&mint.Use{Key: key, Until: now})
		_, _ = l.allow(key, now)
		vouchers.add(&proof{token: key}, &vouched{registered: jwtClaims{expires: now.Add(time.Hour)}}, now)
	}
	if n := replayed.until.Len(); n != 16384 {
		t.Errorf("%d replays are known", n)
	}
	if n := l.buckets.Len(); n != 16384 {
		t.Errorf("%d buckets", n)
	}
	if n := vouchers.entries.Len(); n != 8192 {
		t.Errorf("%d platform JWTs are remembered", n)
	}
}
