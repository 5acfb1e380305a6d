package registry

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// MaxReported bounds each list of a report.
const MaxReported = 500

// HeldSecret is a client secret that an account holds: what the broker is
// there to replace.
type HeldSecret struct {
	Account    credential.AccountID
	Home       credential.Tenant
	Owner      string
	Credential string // its id
	CreatedAt  time.Time
	ExpiresAt  time.Time
}

// AnyTenantGrants returns the grants for every tenant, in force or not, those
// that end first first, and how many more there are. They belong to no tenant,
// so an operator bounded to one sees none.
func (g *Registry) AnyTenantGrants(ctx context.Context, by By) (found []Grant, more int, err error) {
	if err := by.may(actRead); err != nil || !by.Tenant.IsSystem() {
		return nil, 0, err
	}
	err = g.inPieces(ctx, grantsOpen, "", func(r store.Reader, rows []store.Row) error {
		for _, row := range rows {
			grant, err := loadGrant(r, lastPart(row.Key))
			if err != nil {
				return err
			}
			if grant.AnyTenant != nil {
				found = append(found, *grant)
			}
		}
		return nil
	})
	slices.SortFunc(found, func(a, b Grant) int {
		return orderOf(a.AnyTenant.ExpiresAt.Compare(b.AnyTenant.ExpiresAt), a.ID, b.ID)
	})
	found, more = firstOf(found)
	return found, more, err
}

// clientSecretMark is in the row of every account that holds a client secret.
var clientSecretMark = []byte(`"` + string(ClientSecret) + `"`)

// ClientSecrets returns the client secrets of the accounts that an operator
// sees, those that end first first, and how many more there are. It reads every
// such account: callers keep the answer for a while.
func (g *Registry) ClientSecrets(ctx context.Context, by By) (found []HeldSecret, more int, err error) {
	if err := by.may(actRead); err != nil {
		return nil, 0, err
	}
	take := func(a *Account) {
		for _, c := range a.Credentials {
			if c.Kind == ClientSecret {
				found = append(found, HeldSecret{a.ID, a.Home, a.Owner, c.ID, c.CreatedAt, c.ExpiresAt})
			}
		}
	}
	look := func(row store.Row) error {
		if !bytes.Contains(row.Value, clientSecretMark) {
			return nil
		}
		a, err := decodeAccount(row)
		if err == nil {
			take(a)
		}
		return err
	}
	if by.Tenant.IsSystem() {
		err = g.inPieces(ctx, accounts, "", func(_ store.Reader, rows []store.Row) error {
			for _, row := range rows {
				if err := look(row); err != nil {
					return err
				}
			}
			return nil
		})
	} else {
		err = g.inPieces(ctx, accountsHome, under(by.Tenant.String()), func(r store.Reader, rows []store.Row) error {
			for _, of := range rows {
				row, err := r.Get(accounts, lastPart(of.Key))
				if err == nil {
					err = look(row)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	slices.SortFunc(found, func(a, b HeldSecret) int {
		return orderOf(a.ExpiresAt.Compare(b.ExpiresAt), a.Account.String(), b.Account.String())
	})
	found, more = firstOf(found)
	return found, more, err
}

// inPieces hands the rows under a prefix to fn, maxVisited at a time, each
// piece in a read of its own: a long one would keep old pages alive. What
// changes meanwhile is seen before or after.
func (g *Registry) inPieces(ctx context.Context, t store.Table, prefix string, fn func(store.Reader, []store.Row) error) error {
	after := ""
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := g.store.View(ctx, func(r store.Reader) error {
			rows := make([]store.Row, 0, 256)
			for row, err := range r.Scan(t, prefix, after) {
				if err != nil {
					return err
				}
				if rows = append(rows, row); len(rows) == maxVisited {
					break
				}
			}
			if more = len(rows) == maxVisited; more {
				after = strings.Clone(rows[len(rows)-1].Key)
			}
			return fn(r, rows)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func orderOf(first int, a, b string) int {
	if first != 0 {
		return first
	}
	return strings.Compare(a, b)
}

func firstOf[T any](all []T) ([]T, int) {
	if len(all) > MaxReported {
		return all[:MaxReported:MaxReported], len(all) - MaxReported
	}
	return all, 0
}
