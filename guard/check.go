package guard

import (
	"context"
	"errors"
	"fmt"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Why something is denied. Match with errors.Is; a *Denied says more.
var (
	// ErrNoToken means: no token came this far.
	ErrNoToken = errors.New("guard: no token in the context")
	// ErrCrossing means: the object is another tenant's.
	ErrCrossing = errors.New("guard: another tenant's")
	// ErrNoTenant means: the object names no tenant, so it is nobody's.
	ErrNoTenant = errors.New("guard: a resource without a tenant")
	// ErrInside means: the context has a token of another tenant already.
	ErrInside = errors.New("guard: inside another tenant's context")
	// ErrNotFound is for Refuse, where a service has no such object.
	ErrNotFound = errors.New("guard: no such object")
	// ErrScope means: the token lacks a scope that the route asks for.
	ErrScope = errors.New("guard: a scope is missing")
	// ErrBusy means: more is asked for at once than a bound allows. Later it may be
	// answered.
	ErrBusy = errors.New("guard: too much at once")

	// ErrDiffers means: a message names another tenant than the token has. It is an
	// ErrCrossing too, one that a caller may be told of.
	ErrDiffers = fmt.Errorf("%w: the message names it", ErrCrossing)
	// ErrNotOnce means: a message names no tenant, or several. It is an ErrNoTenant too.
	ErrNotOnce = fmt.Errorf("%w: the message names none, or several", ErrNoTenant)
)

// Resource is an object that somebody wants, as it is stored.
type Resource struct {
	Tenant credential.Tenant // whose it is, from the object itself, never from the request
	Type   string            // what it is, such as "order"
	ID     string
}

// Check decides whether the token in ctx opens a resource, and leaves one line.
// Call it where the object was found, before anything of it is used. It denies
// by default: without a token, without a tenant of the resource, with another.
//
// Errors, each a *Denied: ErrNoToken, ErrNoTenant, ErrCrossing; those of the
// verifier, for a token that is no longer good.
func Check(ctx context.Context, r Resource) error {
	return judge(ctx, r, func(token *verifier.Token, d *Decision) error {
		switch {
		case r.Tenant.IsZero():
			d.Reason = "resource_without_tenant"
			return ErrNoTenant
		case r.Tenant != token.Tenant():
			d.Reason, d.Crossing = "crossing", true
			return ErrCrossing
		}
		d.Allowed, d.Reason = true, "same_tenant"
		return nil
	})
}

// CheckScopes decides whether the token in ctx has all these scopes, for what a
// route can't say. It leaves a line when it denies.
//
// Errors, each a *Denied: ErrNoToken, ErrScope; those of the verifier.
func CheckScopes(ctx context.Context, scopes credential.Scopes) error {
	return judge(ctx, Resource{}, func(token *verifier.Token, d *Decision) error {
		if token.Scopes().Contains(scopes) {
			return nil
		}
		d.Reason = "scope_lacking"
		return ErrScope
	})
}

// SameTenant decides whether a message of the caller, which names its tenant
// somewhere, names the token's: for what comes otherwise than by HTTP, and for
// each message of a stream. where is a word for the lines, such as "message".
// said is all that is named there: other than exactly one is denied.
//
// Errors, each a *Denied: ErrNoToken, ErrNotOnce, ErrDiffers; those of the
// verifier.
func SameTenant(ctx context.Context, where string, said ...string) error {
	return judge(ctx, Resource{}, func(token *verifier.Token, d *Decision) error {
		switch {
		case len(said) != 1:
			d.Reason = "tenant_not_once"
			return ErrNotOnce
		case said[0] != token.Tenant().String():
			d.Reason, d.Crossing = "tenant_"+where+"_differs", true
			d.Resource.Tenant, _ = credential.ParseTenant(said[0]) // what is none goes into no line
			return ErrDiffers
		}
		return nil
	})
}

// judge has look decide with the token in ctx, verified again. A denial leaves a
// line, and what look calls allowed does too.
func judge(ctx context.Context, r Resource, look func(*verifier.Token, *Decision) error) error {
	e, token, err := current(ctx, r)
	if err != nil {
		return err
	}
	d := e.decision("")
	d.Resource = r
	err = look(token, &d)
	if err == nil && !d.Allowed {
		return nil
	}
	if d.Crossing {
		e.crossed.Store(true)
	}
	e.guard.decide(ctx, d)
	if err != nil {
		return &Denied{Decision: d, err: err}
	}
	return nil
}

// orphan denies what is reached for with no token in the context. err is why.
func orphan(ctx context.Context, r Resource, err error) *Denied {
	orphaned.Add(1)
	d := Decision{Reason: reasonNoToken, Resource: r}
	logDecision(ctx, nil, d)
	tell(ctx, d)
	return &Denied{Decision: d, err: err}
}

// current returns the token that was let in, verified anew: it may have ended
// since. That there is none, or none that is good any more, leaves a line.
func current(ctx context.Context, r Resource) (*entry, *verifier.Token, error) {
	e := entryOf(ctx)
	if e == nil {
		return nil, nil, orphan(ctx, r, ErrNoToken)
	}
	token, err := e.guard.verifier.Verify(ctx, e.raw)
	if err != nil {
		d := e.decision(verifier.Reason(err))
		d.Resource = r
		e.guard.decide(ctx, d)
		return nil, nil, &Denied{Decision: d, err: fmt.Errorf("guard: the token is no longer good: %w", err)}
	}
	return e, token, nil
}

// Denied is a decision against a request. Its text is for logs: a caller is told
// neither whose an object is nor that there is one, see Refuse.
type Denied struct {
	Decision Decision
	err      error
}

// Error names the resource and the cause, and no tenant but the token's.
func (d *Denied) Error() string {
	if d.Decision.Resource.Type == "" {
		return d.err.Error()
	}
	return fmt.Sprintf("%s: %s %q", d.err, d.Decision.Resource.Type, d.Decision.Resource.ID)
}

// Unwrap returns the cause.
func (d *Denied) Unwrap() error { return d.err }
