package guard

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
)

// Decision is one decision, as it is logged: the fields are named as in the
// broker's own record, so that `jti` and `txn` lead from one to the other.
type Decision struct {
	Time      time.Time
	Allowed   bool
	Crossing  bool // somebody reached for another tenant
	Reason    string
	Tenant    credential.Tenant // the token's; zero without one
	Subject   credential.AccountID
	Actor     credential.AccountID // zero without delegation
	ClientID  credential.AccountID
	JTI       string
	Txn       string
	Job       string
	RequestID string
	Resource  Resource // its Tenant is whose it is; zero Type: the request itself
}

// decision is one about this entry.
func (e *entry) decision(reason string) Decision {
	return Decision{
		Reason: reason, Tenant: e.token.Tenant(), Subject: e.token.Subject(), Actor: e.token.Actor(), ClientID: e.token.ClientID(),
		JTI: e.token.ID(), Txn: e.token.Txn(), Job: e.token.Job(), RequestID: e.id(),
	}
}

// decide logs, counts and passes on.
func (g *Guard) decide(ctx context.Context, d Decision) {
	d.Time = g.now()
	g.counts.add(d)
	logDecision(ctx, g.log, d)
	if g.observe != nil {
		g.observe(ctx, d)
	}
	tell(ctx, d)
}

// logDecision writes the line; log nil: the default one's.
func logDecision(ctx context.Context, log *slog.Logger, d Decision) {
	if log == nil {
		log = slog.Default()
	}
	level, decision := slog.LevelWarn, audit.Deny
	if d.Allowed {
		level, decision = slog.LevelInfo, audit.Allow
	}
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs, slog.String("decision", string(decision)), slog.String("reason", d.Reason))
	for _, a := range [...]struct{ name, value string }{
		{"tenant", d.Tenant.String()}, {"sub", d.Subject.String()}, {"act", d.Actor.String()}, {"client_id", d.ClientID.String()},
		{"jti", d.JTI}, {"txn", d.Txn}, {"job", d.Job}, {"request_id", d.RequestID},
		{"resource_type", d.Resource.Type}, {"resource_id", d.Resource.ID}, {"resource_tenant", d.Resource.Tenant.String()},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.name, a.value))
		}
	}
	log.LogAttrs(ctx, level, "guard", attrs...)
}

// orphaned counts checks without a token, which no Guard sees.
var orphaned atomic.Uint64

// counts are the decisions by outcome.
type counts struct {
	allowed   atomic.Uint64
	crossings atomic.Uint64

	mu     sync.Mutex
	denied map[string]uint64 // by reason: words of this package and the verifier
}

func (c *counts) add(d Decision) {
	if d.Allowed {
		c.allowed.Add(1)
		return
	}
	if d.Crossing {
		c.crossings.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.denied == nil {
		c.denied = make(map[string]uint64)
	}
	c.denied[d.Reason]++
}

// Stats are counts since the Guard was made.
type Stats struct {
	Allowed   uint64
	Denied    map[string]uint64 // by reason
	Crossings uint64            // alarm on any: somebody reached for another tenant
	// WithoutToken are checks in a context without a token, of the whole process:
	// code that no Handler is in front of.
	WithoutToken uint64
}

// Stats returns the counts, for a service's metrics; promguard does that.
func (g *Guard) Stats() Stats {
	c := &g.counts
	s := Stats{Allowed: c.allowed.Load(), Crossings: c.crossings.Load(), WithoutToken: orphaned.Load()}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Denied = maps.Clone(c.denied)
	return s
}
