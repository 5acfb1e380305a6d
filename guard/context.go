package guard

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// entry is a caller that was let in: it travels in the context.
type entry struct {
	guard   *Guard
	raw     string
	token   *verifier.Token
	request atomic.Pointer[string] // its id; nil: none was asked for yet
	crossed atomic.Bool            // a crossing was denied, and no store has refused one since
}

// id is the request's, made when it is first asked for.
func (e *entry) id() string {
	if id := e.request.Load(); id != nil {
		return *id
	}
	made := credential.NewID()
	if e.request.CompareAndSwap(nil, &made) {
		return made
	}
	return *e.request.Load()
}

type key struct{}

// Enter verifies a token that did not come by HTTP, such as that of a job, and
// returns a context for which Check decides. requestID is for the lines; a new
// one is made of "".
//
// Errors: those of the verifier; ErrInside if a token is in ctx already that is
// for another tenant.
func (g *Guard) Enter(ctx context.Context, raw, requestID string) (context.Context, error) {
	token, err := g.verifier.Verify(ctx, raw)
	if err != nil {
		g.decide(ctx, Decision{Reason: verifier.Reason(err), RequestID: requestID})
		return nil, err
	}
	e := &entry{guard: g, raw: raw, token: token}
	if requestID != "" {
		e.request.Store(&requestID)
	}
	return g.enter(ctx, e)
}

// TenantHeaders are the names under which a request may name its tenant to code
// behind, in canonical form: each value has to be the token's tenant.
func (g *Guard) TenantHeaders() []string { return slices.Clone(g.headers) }

// enter puts an entry into a context. One request has one tenant: work that goes
// on for another gets a context of its own.
func (g *Guard) enter(ctx context.Context, e *entry) (context.Context, error) {
	if within := e.insideAnother(ctx); within != nil {
		d := e.decision("inside_another_tenant")
		d.Crossing, d.Resource.Tenant = true, within.token.Tenant()
		g.decide(ctx, d)
		return nil, ErrInside
	}
	return context.WithValue(ctx, key{}, e), nil
}

// insideAnother returns the entry that ctx has already, if its tenant is another.
func (e *entry) insideAnother(ctx context.Context) *entry {
	if within := entryOf(ctx); within != nil && within.token.Tenant() != e.token.Tenant() {
		return within
	}
	return nil
}

func entryOf(ctx context.Context) *entry {
	e, _ := ctx.Value(key{}).(*entry)
	return e
}

// Token returns the token that was let in, verified again: it may have expired
// or been revoked since. It leaves a line when it denies.
//
// Errors, each a *Denied: ErrNoToken; those of the verifier.
func Token(ctx context.Context) (*verifier.Token, error) {
	_, token, err := current(ctx, Resource{})
	return token, err
}

// Tenant returns the tenant of the token that was let in, as Token does.
func Tenant(ctx context.Context) (credential.Tenant, error) {
	token, err := Token(ctx)
	if err != nil {
		return credential.Tenant{}, err
	}
	return token.Tenant(), nil
}

// RequestID returns the id under which the request is in the lines, "" outside.
func RequestID(ctx context.Context) string {
	if e := entryOf(ctx); e != nil {
		return e.id()
	}
	return ""
}
