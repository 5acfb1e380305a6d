package issuer

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

func TestRefusalsAreBounded(t *testing.T) {
	w := standard(t)
	for n := range maxRefusals + 500 {
		w.iss.refusals.add(refusal{endpoint: TokenEndpoint, reason: fmt.Sprint("r", n)}, 1)
	}
	w.iss.refusals.add(refusal{endpoint: TokenEndpoint, reason: "r1"}, 1)
	counts := w.iss.refusals.take()
	if len(counts) != 1025 || counts[refusal{endpoint: TokenEndpoint, reason: "various"}] != 500 ||
		counts[refusal{endpoint: TokenEndpoint, reason: "r1"}] != 2 {
		t.Errorf("%d kinds", len(counts))
	}
}

// Under a flood the frequent kinds are told apart, and nothing is left out.
func TestRefusalsAreFoldedWhenThereAreTooMany(t *testing.T) {
	w := standard(t)
	kind := func(reason string) refusal { return refusal{endpoint: TokenEndpoint, reason: reason} }
	for n := range 1000 {
		w.iss.refusals.add(kind(fmt.Sprint("first", n)), 1)
	}
	w.must(w.iss.flush(t.Context()))
	before := len(w.records())
	if before != 1000 {
		t.Fatalf("%d records of 1000 kinds", before)
	}
	for n := range 100 {
		w.iss.refusals.add(kind(fmt.Sprint("rare", n)), 1)
	}
	w.iss.refusals.add(refusal{endpoint: RevocationEndpoint, reason: "rare"}, 1)
	for n := range 20 {
		w.iss.refusals.add(kind(fmt.Sprint("frequent", n)), 5)
	}
	w.clock.add(flushEvery)
	w.must(w.iss.flush(t.Context()))
	counts, total := map[string]uint64{}, uint64(0)
	for _, l := range w.records()[before:] {
		counts[l.Type+" "+l.Reason] = l.Count
		total += l.Count
	}
	for n := range 20 {
		if counts[fmt.Sprintf("token.denied frequent%d", n)] != 5 {
			t.Errorf("frequent%d is not told apart", n)
		}
	}
	// 1024 - 1000 and half a record for each of the ten seconds.
	if len(counts) < 30 || len(counts) > 31 || counts["token.denied various"] == 0 || total != 100+1+20*5 {
		t.Errorf("%d records of %d refusals: %v", len(counts), total, counts)
	}
}

// Whoever sends whatever without a credential, the audit log grows by less than
// 40 MB a day, as Bounds of the records and SECURITY.md say.
func TestRefusalsFillNoDisk(t *testing.T) {
	w := standard(t)
	bytes := func() (n int64) {
		w.must(w.st.View(t.Context(), func(r store.Reader) error {
			for e, err := range r.Log(0) {
				if err != nil {
					return err
				}
				n += int64(len(e.Raw)) + 32 // its keys and lengths in the file
			}
			return nil
		}))
		return n
	}
	longest := credential.MustAccountID(strings.Repeat("x", 128))
	network := netip.MustParseAddr("2001:4860:4860:8888::").As16()
	hour := func() int64 {
		before := bytes()
		for at := time.Duration(0); at < time.Hour; at += flushEvery {
			for n := range 1100 {
				endpoint := []Endpoint{TokenEndpoint, IntrospectionEndpoint, RevocationEndpoint}[n%3]
				network[6], network[7] = byte(n>>8), byte(n)
				from := Origin{IP: netip.AddrFrom16(network)}
				_ = w.iss.count(endpoint, from, longest, badRequest("", "unsupported_client_assertion_type"))
			}
			w.must(w.iss.flush(t.Context()))
			w.clock.add(flushEvery)
		}
		return bytes() - before
	}
	first, next := hour(), hour()
	day := first + 23*next
	t.Logf("%.1f MB a day", float64(day)/1e6)
	if day > 40e6 {
		t.Errorf("%.1f MB a day", float64(day)/1e6)
	}
}

func TestRefusalsSurviveAFailedFlush(t *testing.T) {
	var failing *storetest.Failing
	w := standardOn(t, func(s store.Store) store.Store { failing = storetest.NewFailing(s); return failing })
	_ = w.refusal(w.asking("worker", want{"client_assertion": "rubbish"}))
	room := w.iss.refusals.told.TokensAt(w.clock.now())
	failing.Fail(storetest.Failed, 1)
	if err := w.iss.flush(t.Context()); err == nil {
		t.Fatal("the flush did not fail")
	}
	if left := w.iss.refusals.told.TokensAt(w.clock.now()); left != room {
		t.Errorf("%v of %v records are left, and none was written", left, room)
	}
	_ = w.refusal(w.asking("worker", want{"client_assertion": "rubbish"}))
	w.must(w.iss.flush(t.Context()))
	if l := w.last(); l.Count != 2 {
		t.Errorf("%d counted", l.Count)
	}
}

// memory is a store that a bubble of synthetic time can hold: it only counts
// what is appended.
type memory struct {
	store.Store
	updates int
	broken  bool
}

func (m *memory) Update(context.Context, func(store.Tx) error) error {
	if m.broken {
		return store.ErrUnavailable
	}
	m.updates++
	return nil
}

func (m *memory) View(context.Context, func(store.Reader) error) error { return store.ErrUnavailable }

func TestRunFlushesNowAndThenAndAtTheEnd(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		var logged strings.Builder
		m := &memory{}
		i, err := New(Config{
			Issuer: credential.MustIssuerURL(brokerURL), Store: m, Registry: w.reg, Keys: w.ring, Now: time.Now,
			Logger: slog.New(slog.NewTextHandler(&logged, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- i.Run(ctx) }()
		one := refusal{endpoint: TokenEndpoint, reason: "x"}
		i.refusals.add(one, 1)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if m.updates != 1 {
			t.Errorf("%d flushes after 11 s", m.updates)
		}
		time.Sleep(time.Minute) // a sweep, which fails here
		synctest.Wait()
		m.broken = true
		i.refusals.add(one, 1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		m.broken = false
		cancel()
		if err := <-done; err != nil || m.updates != 2 {
			t.Errorf("%v, %d flushes", err, m.updates)
		}
		if s := logged.String(); !strings.Contains(s, "counted on") || !strings.Contains(s, "sweeping") {
			t.Errorf("log: %s", s)
		}
	})
}
