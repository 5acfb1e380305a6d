package registry

import (
	"context"
	"errors"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Page asks for a piece of a list. Lists are in the byte order of their ids.
type Page struct {
	After string // the id to go on after: the `next` of the page before; "" for the first
	Limit int    // 1 to MaxPage; 0 stands for DefaultPage
}

func (p Page) check() (Page, error) {
	switch {
	case p.Limit == 0:
		p.Limit = DefaultPage
	case p.Limit < 0 || p.Limit > MaxPage:
		return p, invalid("limit", "1 to %d", MaxPage)
	}
	if len(p.After) > MaxURLLength || strings.IndexByte(p.After, 0) >= 0 {
		return p, invalid("cursor", "not one of this list")
	}
	return p, nil
}

// lastPart is the last part of a derived row's key: the object's id.
func lastPart(key string) string { return key[strings.LastIndexByte(key, 0)+1:] }

// list walks one table under prefix, loads what keep says, and returns a page
// and where the next one starts ("" at the end). A page may hold less than the
// limit, even nothing, while more is to come: looking at rows is bounded too.
func list[T any](r store.Reader, p Page, t store.Table, prefix string, keep func(store.Row) (bool, error), load func(id string) (*T, error), weight func(*T) int) (found []T, next string, err error) {
	after := ""
	if p.After != "" {
		after = prefix + p.After
	}
	var keys []string
	more := true
	for visited := 0; more && len(keys) < p.Limit && visited < maxVisited; {
		// A batch is read to its end before anything else is asked of the
		// store: one question at a time is all that a server's session takes.
		batch := make([]store.Row, 0, p.Limit+1)
		for row, err := range r.Scan(t, prefix, after) {
			if err != nil {
				return nil, "", err
			}
			if batch = append(batch, row); len(batch) > p.Limit {
				break
			}
		}
		more = len(batch) > p.Limit
		for i, row := range batch {
			if len(keys) == p.Limit || i == p.Limit {
				more = true
				break
			}
			visited++
			after, next = row.Key, lastPart(row.Key)
			kept, err := keep(row)
			if err != nil {
				return nil, "", err
			}
			if kept {
				keys = append(keys, next)
			}
		}
	}
	if !more {
		next = ""
	}
	heavy := 0
	for n, id := range keys {
		object, err := load(id)
		if err != nil {
			if errors.Is(err, ErrNotFound) {
				err = errors.New("registry: an index names an object that is not there")
			}
			return nil, "", err
		}
		found = append(found, *object)
		if heavy += weight(object); heavy > maxListedTenants && n+1 < len(keys) {
			return found, id, nil
		}
	}
	return found, next, nil
}

func all(store.Row) (bool, error) { return true, nil }

func light[T any](*T) int { return 0 }

// page runs one list for an operator.
func page[T any](ctx context.Context, g *Registry, by By, p Page, fn func(store.Reader, Page) ([]T, string, error)) (found []T, next string, err error) {
	p, err = p.check()
	if err != nil {
		return nil, "", err
	}
	err = g.view(ctx, by, func(r store.Reader) (err error) {
		found, next, err = fn(r, p)
		return err
	})
	return found, next, err
}

// ListTenants lists tenants by id. An operator bounded to a tenant sees that one.
func (g *Registry) ListTenants(ctx context.Context, by By, p Page) ([]Tenant, string, error) {
	return page(ctx, g, by, p, func(r store.Reader, p Page) ([]Tenant, string, error) {
		if by.Tenant.IsSystem() {
			load := func(id string) (*Tenant, error) { return load(r, tenants, id, decodeTenant) }
			return list(r, p, tenants, "", all, load, light)
		}
		t, err := loadTenant(r, by.Tenant)
		if errors.Is(err, ErrNotFound) || (err == nil && t.ID.String() <= p.After) {
			return nil, "", nil
		}
		if err != nil {
			return nil, "", err
		}
		return []Tenant{*t}, "", nil
	})
}

// ListAccounts lists accounts by id, without the hashes of their secrets.
func (g *Registry) ListAccounts(ctx context.Context, by By, p Page) ([]Account, string, error) {
	return page(ctx, g, by, p, func(r store.Reader, p Page) ([]Account, string, error) {
		load := func(id string) (*Account, error) {
			a, err := load(r, accounts, id, decodeAccount)
			if err != nil {
				return nil, err
			}
			shown := a.shown()
			return &shown, nil
		}
		if by.Tenant.IsSystem() {
			return list(r, p, accounts, "", all, load, light)
		}
		return list(r, p, accountsHome, under(by.Tenant.String()), all, load, light)
	})
}

// ListAudiences lists audiences by name.
func (g *Registry) ListAudiences(ctx context.Context, by By, p Page) ([]Audience, string, error) {
	return page(ctx, g, by, p, func(r store.Reader, p Page) ([]Audience, string, error) {
		load := func(name string) (*Audience, error) { return load(r, audiences, name, decodeAudience) }
		if by.Tenant.IsSystem() {
			return list(r, p, audiences, "", all, load, light)
		}
		return list(r, p, audienceHome, under(by.Tenant.String()), all, load, light)
	})
}

// ListIssuers lists trusted issuers by id.
func (g *Registry) ListIssuers(ctx context.Context, by By, p Page) ([]TrustedIssuer, string, error) {
	return page(ctx, g, by, p, func(r store.Reader, p Page) ([]TrustedIssuer, string, error) {
		if !by.sees(credential.System) {
			return nil, "", nil
		}
		load := func(id string) (*TrustedIssuer, error) { return loadIssuer(r, id) }
		return list(r, p, issuers, "", all, load, light)
	})
}

// GrantFilter chooses grants; its zero fields choose all.
type GrantFilter struct {
	Account  credential.AccountID
	Audience credential.Audience
	Tenant   credential.Tenant // that list this tenant
}

// ListGrants lists grants by id, oldest first, operators' grants included. A
// page may hold less than the limit while more is to come.
func (g *Registry) ListGrants(ctx context.Context, by By, f GrantFilter, p Page) ([]Grant, string, error) {
	return page(ctx, g, by, p, func(r store.Reader, p Page) ([]Grant, string, error) {
		if !by.Tenant.IsSystem() {
			if f.Tenant.IsZero() {
				f.Tenant = by.Tenant
			}
			if f.Tenant != by.Tenant {
				return nil, "", nil
			}
		}
		return listGrants(r, by, f, p)
	})
}

func listGrants(r store.Reader, by By, f GrantFilter, p Page) ([]Grant, string, error) {
	t, prefix := grants, ""
	switch { // the narrowest index; the rest is filtered
	case !f.Account.IsZero():
		t, prefix = grantsAccount, under(f.Account.String())
	case !f.Tenant.IsZero():
		t, prefix = grantsTenant, under(f.Tenant.String())
	case !f.Audience.IsZero():
		t, prefix = grantsAudience, under(f.Audience.String())
	}
	keep := func(row store.Row) (bool, error) {
		id := lastPart(row.Key)
		if !f.Audience.IsZero() && t != grantsAudience {
			if _, found, err := lookup(r, grantsAudience, f.Audience.String(), id); err != nil || !found {
				return false, err
			}
		}
		if f.Tenant.IsZero() {
			return true, nil
		}
		share, found, err := lookup(r, grantsTenant, f.Tenant.String(), id)
		return found && (by.Tenant.IsSystem() || share == shareSole), err
	}
	load := func(id string) (*Grant, error) { return loadGrant(r, id) }
	return list(r, p, t, prefix, keep, load, func(g *Grant) int { return len(g.Tenants) })
}

// lookup returns the value of a derived row, if there is one.
func lookup(r store.Reader, t store.Table, of, id string) (string, bool, error) {
	row, err := r.Get(t, store.Key(of, id))
	if errors.Is(err, ErrNotFound) {
		return "", false, nil
	}
	return string(row.Value), err == nil, err
}

// ListOperators lists operators' grants by id.
func (g *Registry) ListOperators(ctx context.Context, by By, p Page) ([]Grant, string, error) {
	return page(ctx, g, by, p, func(r store.Reader, p Page) ([]Grant, string, error) {
		load := func(id string) (*Grant, error) { return loadGrant(r, id) }
		keep := func(row store.Row) (bool, error) {
			if by.Tenant.IsSystem() {
				return true, nil
			}
			share, _, err := lookup(r, grantsTenant, by.Tenant.String(), lastPart(row.Key))
			return share == shareSole, err
		}
		return list(r, p, grantsAudience, under(g.AdminAudience().String()), keep, load, light)
	})
}
