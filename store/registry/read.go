package registry

import (
	"errors"
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// The reads on which a token rests. They run inside the caller's transaction,
// give shared decoded objects that must not be changed, and the Ref at which
// the caller has the store re-check them in the commit (I5).

type cacheKey struct {
	table store.Table
	key   string
}

// cacheEntry is a decoded row. The row itself is read every time; decoding it,
// and parsing the keys in it, is done once per version.
type cacheEntry struct {
	version uint64
	object  any
}

func cached[T any](g *Registry, r store.Reader, t store.Table, key string, decode func(store.Row) (*T, error)) (*T, store.Ref, error) {
	row, err := r.Get(t, key)
	if err != nil {
		return nil, store.Ref{}, err
	}
	ref := store.Ref{Table: t, Key: key, Version: row.Version}
	if e, ok := g.cache.Get(cacheKey{t, key}); ok && e.version == row.Version {
		if object, ok := e.object.(*T); ok {
			return object, ref, nil
		}
	}
	object, err := decode(row)
	if err != nil {
		return nil, store.Ref{}, err
	}
	// The key may be a piece of a longer one, which the cache need not keep.
	g.cache.Add(cacheKey{t, strings.Clone(key)}, cacheEntry{row.Version, object})
	return object, ref, nil
}

// TenantAt returns a tenant in any state, or ErrNotFound. The system tenant is
// not found: it is no row.
func (g *Registry) TenantAt(r store.Reader, id credential.Tenant) (*Tenant, store.Ref, error) {
	return cached(g, r, tenants, id.String(), decodeTenant)
}

// AccountAt returns an account, disabled and expired ones included, or
// ErrNotFound. Any change of its credentials changes its version.
func (g *Registry) AccountAt(r store.Reader, id credential.AccountID) (*Account, store.Ref, error) {
	return cached(g, r, accounts, id.String(), decodeAccount)
}

// AudienceAt returns a registered audience, or ErrNotFound. The broker's own
// audiences are not found: they are no rows.
func (g *Registry) AudienceAt(r store.Reader, name credential.Audience) (*Audience, store.Ref, error) {
	return cached(g, r, audiences, name.String(), decodeAudience)
}

// OwnedAt returns the row of an audience that the account owns, or ErrNotFound.
func (g *Registry) OwnedAt(r store.Reader, account credential.AccountID) (store.Ref, error) {
	name := ""
	for row, err := range r.Scan(audienceOwner, under(account.String()), "") {
		if err != nil {
			return store.Ref{}, err
		}
		name = lastPart(row.Key)
		break
	}
	row, err := r.Get(audiences, name)
	return store.Ref{Table: audiences, Key: name, Version: row.Version}, err
}

// IssuerAt returns a trusted issuer by its id, or ErrNotFound.
func (g *Registry) IssuerAt(r store.Reader, id string) (*TrustedIssuer, store.Ref, error) {
	return cached(g, r, issuers, id, decodeIssuer)
}

// IssuerByURL returns the trusted issuer with exactly this `iss`, or ErrNotFound.
func (g *Registry) IssuerByURL(r store.Reader, iss string) (*TrustedIssuer, store.Ref, error) {
	if iss == "" || len(iss) > MaxURLLength || strings.IndexByte(iss, 0) >= 0 {
		return nil, store.Ref{}, ErrNotFound
	}
	row, err := r.Get(issuerURLs, iss)
	if err != nil {
		return nil, store.Ref{}, err
	}
	return g.IssuerAt(r, string(row.Value))
}

// AccountBySubject returns the account that a platform identity belongs to, by
// exact issuer id and `sub`, or ErrNotFound. It needs no Ref of its own: losing
// the credential changes the account's version.
func (g *Registry) AccountBySubject(r store.Reader, issuerID, subject string) (credential.AccountID, error) {
	// A NUL would let a subject spell another key.
	if len(subject) > MaxSubjectLength || !plainID(issuerID) || strings.IndexByte(subject, 0) >= 0 {
		return credential.AccountID{}, ErrNotFound
	}
	row, err := r.Get(subjects, store.Key(issuerID, subject))
	if err != nil {
		return credential.AccountID{}, err
	}
	return credential.ParseAccountID(string(row.Value))
}

// GrantRef is one grant that might cover a request.
type GrantRef struct {
	Grant *Grant // without its list of tenants
	Ref   store.Ref
	// Listed: the grant names the tenant in question. If not, it finds its
	// tenant by labels, by an expression, or takes any.
	Listed bool
}

// GrantsAt returns the grants of an account for an audience that name the
// tenant, and those that don't name tenants at all, by ascending id. It reads
// no list of tenants: its cost doesn't depend on how many the account has. Any
// change of a grant's list changes the grant's version. With the zero Tenant
// only the latter are returned.
//
// Whether a grant is in force, and whether one without a list yields the
// tenant, is for the caller to decide.
func (g *Registry) GrantsAt(r store.Reader, account credential.AccountID, audience credential.Audience, tenant credential.Tenant) ([]GrantRef, error) {
	found, err := g.grantsUnder(r, nil, grantsOpen, under(account.String(), audience.String()), false)
	if err != nil || tenant.IsZero() {
		return found, err
	}
	found, err = g.grantsUnder(r, found, grantTenants, under(account.String(), audience.String(), tenant.String()), true)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b GrantRef) int { return strings.Compare(a.Grant.ID, b.Grant.ID) })
	return found, nil
}

func (g *Registry) grantsUnder(r store.Reader, found []GrantRef, t store.Table, prefix string, listed bool) ([]GrantRef, error) {
	first := len(found)
	for row, err := range r.Scan(t, prefix, "") {
		if err != nil {
			return nil, err
		}
		found = append(found, GrantRef{Ref: store.Ref{Key: row.Key[len(prefix):]}, Listed: listed})
	}
	for i := first; i < len(found); i++ {
		grant, ref, err := cached(g, r, grants, found[i].Ref.Key, decodeGrant)
		if err != nil {
			if errors.Is(err, ErrNotFound) {
				err = errors.New("registry: an index names a grant that is not there")
			}
			return nil, err
		}
		found[i].Grant, found[i].Ref = grant, ref
	}
	return found, nil
}
