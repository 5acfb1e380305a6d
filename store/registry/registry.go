package registry

import (
	"context"
	"errors"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// The tables of the registry. The first group holds the objects; the second
// the ids that are taken or were; the third is derived from the objects and
// changes in the same commit as they do.
const (
	tenants   store.Table = "tenants"   // tenant
	accounts  store.Table = "accounts"  // account
	audiences store.Table = "audiences" // name
	grants    store.Table = "grants"    // grant; its tenants are in grantLists
	issuers   store.Table = "issuers"   // issuer id

	ids store.Table = "ids" // kind, id in lower case → the id, or that it was deleted

	grantLists     store.Table = "grant_lists"     // grant → its tenants
	grantTenants   store.Table = "grant_tenants"   // account, audience, tenant, grant
	grantsOpen     store.Table = "grants_open"     // account, audience, grant: those without a list
	grantsAccount  store.Table = "grants_account"  // account, grant
	grantsAudience store.Table = "grants_audience" // audience, grant
	grantsTenant   store.Table = "grants_tenant"   // tenant, grant
	grantsLabel    store.Table = "grants_label"    // label key, grant
	grantsOperator store.Table = "grants_operator" // account, grant

	accountsHome  store.Table = "accounts_home"  // home, account; not those of the broker itself
	accountKeys   store.Table = "account_keys"   // thumbprint → account
	subjects      store.Table = "subjects"       // issuer id, sub → account
	conditions    store.Table = "conditions"     // issuer id, account, credential
	audienceOwner store.Table = "audience_owner" // account, name
	audienceHome  store.Table = "audience_home"  // home, name; not those of the broker itself
	issuerURLs    store.Table = "issuer_urls"    // iss → issuer id
	uses          store.Table = "uses"           // "account" or "tenant", its id, shared secret that rests on it
)

// CheckCEL compiles an expression and says what is wrong with it. The kinds
// are the constants below.
type CheckCEL func(kind, expr string) error

// The kinds of CEL expression in the registry.
const (
	CELTenantFrom = "tenant_from" // over claims; yields a string
	CELGrant      = "condition"   // over claims, tenant, audience, scopes, now; yields a bool
	CELCredential = "credential"  // over claims; yields a bool
)

// Registry is the rules over a store. It is safe for concurrent use.
type Registry struct {
	store        store.Store
	issuer       credential.IssuerURL
	now          func() time.Time
	checkCEL     CheckCEL
	loopbackHTTP bool
	cacheEntries int
	cache        *lru.Cache[cacheKey, cacheEntry]
	searches     searches
}

// Option configures a Registry.
type Option func(*Registry)

// WithCEL sets what checks CEL expressions. Without it every expression is
// refused.
func WithCEL(check CheckCEL) Option { return func(g *Registry) { g.checkCEL = check } }

// AllowLoopbackHTTP lets trusted issuers on the loopback interface use http,
// for development.
func AllowLoopbackHTTP() Option { return func(g *Registry) { g.loopbackHTTP = true } }

// WithCacheEntries bounds how many decoded objects are kept, 65,536 by default.
func WithCacheEntries(n int) Option {
	return func(g *Registry) {
		if n > 0 {
			g.cacheEntries = n
		}
	}
}

// New returns the registry of the broker that issuer names. Without an issuer
// every change is refused: nobody could tell the broker's own audiences.
func New(st store.Store, issuer credential.IssuerURL, now func() time.Time, opts ...Option) *Registry {
	g := &Registry{
		store: st, issuer: issuer, now: now, cacheEntries: defaultCacheEntries, searches: newSearches(),
		checkCEL: func(string, string) error { return errors.New("this broker takes no expressions") },
	}
	for _, o := range opts {
		o(g)
	}
	g.cache, _ = lru.New[cacheKey, cacheEntry](g.cacheEntries) // fails for a size below 1 only
	return g
}

// AdminAudience is the audience of operators' grants.
func (g *Registry) AdminAudience() credential.Audience { return g.issuer.Own("admin") }

// view runs fn on one state for an operator who may read.
func (g *Registry) view(ctx context.Context, by By, fn func(store.Reader) error) error {
	if err := by.may(actRead); err != nil {
		return err
	}
	return g.store.View(ctx, fn)
}

// change runs fn in one commit for an operator who may do a, with a reason.
func (g *Registry) change(ctx context.Context, by By, a action, fn func(*change) error) error {
	if err := g.admit(by, a); err != nil {
		return err
	}
	return g.commit(ctx, by, func(c *change) error {
		if err := c.standing(a); err != nil {
			return err
		}
		return fn(c)
	})
}

// commit is change without any question to the operator.
func (g *Registry) commit(ctx context.Context, by By, fn func(*change) error) error {
	return g.store.Update(ctx, func(tx store.Tx) error {
		// The clock is read in the commit: an epoch must be no earlier than the
		// tokens that were committed before it.
		return fn(&change{Tx: tx, g: g, by: by, at: instant(g.now())})
	})
}

// admit checks what needs no state: the role and the reason.
func (g *Registry) admit(by By, a action) error {
	if g.issuer.IsZero() {
		return errors.New("registry: made without an issuer")
	}
	if err := by.may(a); err != nil {
		return err
	}
	return CheckReason(by.Reason)
}

// CheckReason holds the reason for a change to MaxReason characters and to
// saying something. The error is an *InvalidError.
func CheckReason(reason string) error { return checkText("reason", reason, MaxReason, true) }
