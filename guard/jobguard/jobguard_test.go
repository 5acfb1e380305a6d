package jobguard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/cacheguard"
	"github.com/tenantbroker/tenantbroker/guard/jobguard"
	"github.com/tenantbroker/tenantbroker/internal/testguard"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// job is a message that brings its token.
type job struct{ id, tenant, token string }

func (j job) Tenant() string {
	if j.tenant == "panics" {
		panic(j.token)
	}
	return j.tenant
}

// parts are the world around a consumer: its tokens, its parking, its handler.
type parts struct {
	*testguard.World
	refuse error // of the source of tokens
	panics any   // in it
	full   error // of the parking
	do     func(context.Context, job) error

	mu     sync.Mutex
	parked map[string]jobguard.Parked // by id
}

func (p *parts) Token(_ context.Context, j job) (string, error) {
	if p.panics != nil {
		panic(p.panics)
	}
	return j.token, p.refuse
}

func (p *parts) Park(ctx context.Context, j job, why jobguard.Parked) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parked[j.id] = why
	return p.full
}

func consumer(t *testing.T) (*parts, *jobguard.Consumer[job]) {
	t.Helper()
	p := &parts{World: testguard.New(t), parked: make(map[string]jobguard.Parked)}
	c, err := jobguard.New(jobguard.Config[job]{
		Guard: p.Guard, Tokens: p, Parking: p, Handle: func(ctx context.Context, j job) error { return p.do(ctx, j) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

func order(tenant string) guard.Resource {
	return guard.Resource{Tenant: credential.MustTenant(tenant), Type: "order", ID: "7"}
}

var errFailed = errors.New("the mail server is down")

func TestWhatBecomesOfAMessage(t *testing.T) {
	never := func(t *testing.T, _ *parts) func(context.Context, job) error {
		return func(context.Context, job) error { t.Error("it was handled"); return nil }
	}
	handled := func(do func(context.Context) error) func(*testing.T, *parts) func(context.Context, job) error {
		return func(*testing.T, *parts) func(context.Context, job) error {
			return func(ctx context.Context, _ job) error { return do(ctx) }
		}
	}
	for name, c := range map[string]struct {
		tenant  string // that the message says
		prepare func(*parts)
		do      func(*testing.T, *parts) func(context.Context, job) error
		reason  jobguard.Reason // "": not parked
		err     error           // of Consume
		why     error           // in Parked
		seen    bool            // a decision is in Parked
	}{
		"done":      {tenant: "acme", do: handled(func(ctx context.Context) error { return guard.Check(ctx, order("acme")) })},
		"failed":    {tenant: "acme", do: handled(func(context.Context) error { return errFailed }), err: errFailed},
		"other":     {tenant: "globex", do: never, reason: jobguard.ReasonTenant, why: guard.ErrCrossing, seen: true},
		"no tenant": {tenant: "", do: never, reason: jobguard.ReasonTenant, why: guard.ErrNoTenant, seen: true},
		"no word":   {tenant: "*", do: never, reason: jobguard.ReasonTenant, why: guard.ErrCrossing, seen: true},
		"expired":   {tenant: "acme", prepare: func(p *parts) { p.Pass(time.Hour) }, do: never, reason: jobguard.ReasonToken, why: verifier.ErrExpired, seen: true},
		"suspended": {
			tenant: "acme", prepare: func(p *parts) { p.RevokeTenant("acme") }, do: never,
			reason: jobguard.ReasonToken, why: verifier.ErrRevoked, seen: true,
		},
		"unknown tenant": {
			tenant: "acme", prepare: func(p *parts) { p.refuse = fmt.Errorf("invalid_target: %w", jobguard.ErrRefused) }, do: never,
			reason: jobguard.ReasonRefused, why: jobguard.ErrRefused,
		},
		"no broker": {tenant: "acme", prepare: func(p *parts) { p.refuse = errFailed }, do: never, err: errFailed},
		"crossing, and says nothing": {tenant: "acme", reason: jobguard.ReasonCrossing, seen: true, do: handled(func(ctx context.Context) error {
			_ = guard.Check(ctx, order("acme"))
			_ = guard.Check(ctx, guard.Resource{Type: "order"}) // a smaller one does not hide it
			_ = guard.Check(ctx, order("globex"))
			return nil
		})},
		"crossing, and fails": {tenant: "acme", reason: jobguard.ReasonCrossing, why: guard.ErrCrossing, seen: true, do: handled(func(ctx context.Context) error {
			return guard.Check(ctx, order("globex"))
		})},
		"crossing, and panics": {tenant: "acme", reason: jobguard.ReasonCrossing, seen: true, do: handled(func(ctx context.Context) error {
			panic(guard.Check(ctx, order("globex")))
		})},
		"crossing in a cache": {tenant: "acme", reason: jobguard.ReasonCrossing, seen: true, do: handled(func(ctx context.Context) error {
			_, _ = cacheguard.CheckKey(ctx, "cache", "tb:globex:order:7")
			return nil
		})},
		"denied, and says nothing": {tenant: "acme", reason: jobguard.ReasonDenied, seen: true, do: handled(func(ctx context.Context) error {
			_ = guard.Check(ctx, guard.Resource{Type: "order"})
			return nil
		})},
		"panics": {tenant: "acme", reason: jobguard.ReasonPanic, do: func(*testing.T, *parts) func(context.Context, job) error {
			return func(_ context.Context, j job) error { panic("with " + j.token) }
		}},
		"the message panics": {tenant: "panics", do: never, reason: jobguard.ReasonPanic},
		"the source of tokens panics": {
			tenant: "acme", prepare: func(p *parts) { p.panics = "with " + p.tokenOf("acme") }, do: never, reason: jobguard.ReasonPanic,
		},
		"expires meanwhile, and says so": {tenant: "acme", err: verifier.ErrExpired, do: func(_ *testing.T, p *parts) func(context.Context, job) error {
			return func(ctx context.Context, _ job) error { p.Pass(time.Hour); return guard.Check(ctx, order("acme")) }
		}},
		"expires meanwhile, and says nothing": {tenant: "acme", reason: jobguard.ReasonDenied, seen: true, do: func(_ *testing.T, p *parts) func(context.Context, job) error {
			return func(ctx context.Context, _ job) error {
				p.Pass(time.Hour)
				_ = guard.Check(ctx, order("acme"))
				return nil
			}
		}},
		// What asks for the token only, as caches and databases do, denies as well.
		"denied a key, and says nothing": {tenant: "acme", reason: jobguard.ReasonDenied, seen: true, do: func(_ *testing.T, p *parts) func(context.Context, job) error {
			return func(ctx context.Context, _ job) error {
				p.RevokeTenant("acme")
				_, _ = cacheguard.Key(ctx, "order", "7")
				return nil
			}
		}},
		"denied in a cache, and says nothing": {tenant: "acme", reason: jobguard.ReasonDenied, seen: true, do: func(t *testing.T, p *parts) func(context.Context, job) error {
			c, err := cacheguard.New(cacheguard.Config[int]{Entries: 1, TTL: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			return func(ctx context.Context, _ job) error {
				key, err := cacheguard.Key(ctx, "order", "7")
				p.Pass(time.Hour)
				_, _, _ = c.Get(ctx, key)
				return err
			}
		}},
		"denied the token, and says nothing": {tenant: "acme", reason: jobguard.ReasonDenied, seen: true, do: func(_ *testing.T, p *parts) func(context.Context, job) error {
			return func(ctx context.Context, _ job) error {
				p.Pass(time.Hour)
				_, _ = guard.Token(ctx)
				return nil
			}
		}},
		"the parking is full": {
			tenant: "globex", prepare: func(p *parts) { p.full = errFailed }, do: never,
			reason: jobguard.ReasonTenant, why: guard.ErrCrossing, seen: true, err: errFailed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, consumer := consumer(t)
			p.do = c.do(t, p)
			j := job{"1", c.tenant, p.tokenOf("acme")}
			if c.prepare != nil {
				c.prepare(p)
			}
			err := consumer.Consume(t.Context(), j)
			if !errors.Is(err, c.err) {
				t.Errorf("the queue hears %v, want %v", err, c.err)
			}
			parked, is := p.parked["1"]
			if parked.Reason != c.reason || is != (c.reason != "") || c.why != nil && !errors.Is(parked.Err, c.why) {
				t.Errorf("parked %v: %+v; want %q, %v", is, parked, c.reason, c.why)
			}
			if seen := parked.Decision.Reason != ""; seen != c.seen || parked.Decision.Allowed {
				t.Errorf("with the decision %+v", parked.Decision)
			}
			if c.reason == jobguard.ReasonCrossing && (!parked.Decision.Crossing || parked.Decision.Resource.Tenant.String() != "globex") {
				t.Errorf("the crossing is %+v", parked.Decision)
			}
			if said := fmt.Sprintf("%+v %v", parked, err); strings.Contains(said, j.token) || strings.Contains(said, "with ey") {
				t.Error("a token is shown")
			}
			if c.reason == jobguard.ReasonPanic && !strings.Contains(parked.Err.Error(), "jobguard_test.go:") {
				t.Errorf("the panic was at %v", parked.Err)
			}
		})
	}
}

// tokenOf is a token of a tenant.
func (p *parts) tokenOf(tenant string) string { return p.World.Token(tenant) }

// note is a message by pointer, as queues deliver: none is a nil.
type note struct{ tenant string }

func (n *note) Tenant() string { return n.tenant }

type notes struct {
	raw    string
	parked []jobguard.Parked
	read   bool // Park looks into the message
}

func (s *notes) Token(context.Context, *note) (string, error) { return s.raw, nil }

func (s *notes) Park(_ context.Context, n *note, why jobguard.Parked) error {
	s.parked = append(s.parked, why)
	if s.read {
		_ = n.tenant
	}
	return nil
}

// A message that is nothing takes no consumer with it, however often it comes.
func TestAMessageThatIsNothing(t *testing.T) {
	w := testguard.New(t)
	s := &notes{raw: w.Token("acme")}
	consumer, err := jobguard.New(jobguard.Config[*note]{
		Guard: w.Guard, Tokens: s, Parking: s, Handle: func(context.Context, *note) error { t.Error("it was handled"); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := consumer.Consume(t.Context(), nil); err != nil || len(s.parked) != 1 || s.parked[0].Reason != jobguard.ReasonPanic {
		t.Errorf("%v, parked %+v", err, s.parked)
	}
	s.read = true
	if err := consumer.Consume(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "park a message (panic)") {
		t.Errorf("a parking that panics: %v", err)
	}
}

func TestAConsumerThatStopsStillParks(t *testing.T) {
	p, consumer := consumer(t)
	ctx, stop := context.WithCancel(t.Context())
	p.do = func(ctx context.Context, _ job) error { stop(); return guard.Check(ctx, order("globex")) }
	if err := consumer.Consume(ctx, job{"1", "acme", p.tokenOf("acme")}); err != nil || p.parked["1"].Reason != jobguard.ReasonCrossing {
		t.Errorf("%v, %+v", err, p.parked)
	}
}

func TestAJobInsideAnotherTenantsContextIsParked(t *testing.T) {
	p, consumer := consumer(t)
	if err := consumer.Consume(p.As("globex"), job{"1", "acme", p.tokenOf("acme")}); err != nil || p.parked["1"].Reason != jobguard.ReasonTenant {
		t.Errorf("%v, %+v", err, p.parked)
	}
}

func TestAConsumerNeedsAll(t *testing.T) {
	p, _ := consumer(t)
	handle := func(context.Context, job) error { return nil }
	for i, c := range []jobguard.Config[job]{
		{Tokens: p, Handle: handle, Parking: p}, {Guard: p.Guard, Handle: handle, Parking: p},
		{Guard: p.Guard, Tokens: p, Parking: p}, {Guard: p.Guard, Tokens: p, Handle: handle},
	} {
		if _, err := jobguard.New(c); err == nil {
			t.Errorf("%d was taken", i)
		}
	}
}

// Jobs of many tenants at once: each that reaches over is parked, and no other.
func TestNoJobCrossesUnderLoad(t *testing.T) {
	p, consumer := consumer(t)
	tenants := make([]string, 20)
	tokens := make(map[string]string)
	for i := range tenants {
		tenants[i] = fmt.Sprintf("tenant-%d", i)
		tokens[tenants[i]] = p.tokenOf(tenants[i])
	}
	p.do = func(ctx context.Context, j job) error {
		if own, err := guard.Tenant(ctx); err != nil || own.String() != j.tenant {
			t.Errorf("the job of %s runs as %v, %v", j.tenant, own, err)
		}
		touched, _, _ := strings.Cut(j.id, "/")
		_ = guard.Check(ctx, order(touched)) // and says nothing
		return nil
	}
	want := make(map[string]jobguard.Reason)
	jobs := make(chan job, 2000)
	random := rand.New(rand.NewPCG(1, 7))
	pick := func(own string) string { // mostly the same
		if random.IntN(4) == 0 {
			return tenants[random.IntN(len(tenants))]
		}
		return own
	}
	for i := range cap(jobs) {
		own := pick(tenants[0])
		says, touches := pick(own), pick(own)
		id := fmt.Sprintf("%s/%d", touches, i)
		switch {
		case says != own:
			want[id] = jobguard.ReasonTenant
		case touches != own:
			want[id] = jobguard.ReasonCrossing
		}
		jobs <- job{id, says, tokens[own]}
	}
	close(jobs)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for j := range jobs {
				if err := consumer.Consume(t.Context(), j); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for id, reason := range want {
		if p.parked[id].Reason != reason {
			t.Errorf("%s is parked for %q, want %q", id, p.parked[id].Reason, reason)
		}
	}
	if len(p.parked) != len(want) || len(want) < 100 {
		t.Errorf("%d parked, want %d", len(p.parked), len(want))
	}
}
