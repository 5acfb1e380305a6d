package vault

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// Leases are those of all engines.
type Leases struct{ client *Client }

// Leases returns the keeper of leases.
func (c *Client) Leases() *Leases { return &Leases{c} }

// Lease is what Vault knows of one.
type Lease struct {
	ID        string
	IssuedAt  time.Time
	RenewedAt time.Time // zero: never
	ExpiresAt time.Time // zero: never
	Renewable bool
	TTL       time.Duration
}

// Lookup reads a lease. One that has ended is ErrNotFound.
func (l *Leases) Lookup(ctx context.Context, id string) (Lease, error) {
	one := &call{op: opLeaseLookup, method: http.MethodPut, path: "sys/leases/lookup", body: map[string]any{"lease_id": id}}
	out, err := l.client.do(ctx, one)
	if err != nil {
		return Lease{}, err
	}
	var data struct {
		ID        string  `json:"id"`
		Issued    string  `json:"issue_time"`
		Renewed   string  `json:"last_renewal"`
		Expires   string  `json:"expire_time"`
		Renewable bool    `json:"renewable"`
		TTL       seconds `json:"ttl"`
	}
	if err := out.into(one, &data); err != nil {
		return Lease{}, err
	}
	return Lease{
		ID: data.ID, IssuedAt: parseTime(data.Issued), RenewedAt: parseTime(data.Renewed), ExpiresAt: parseTime(data.Expires),
		Renewable: data.Renewable, TTL: data.TTL.duration(),
	}, nil
}

// Renew asks for increment more, counted from now, and returns how long the
// lease lives now: less, where its maximum is near. One that has ended is
// ErrNotFound, one that can't be renewed ErrRefused.
func (l *Leases) Renew(ctx context.Context, id string, increment time.Duration) (time.Duration, error) {
	one := &call{op: opLeaseRenew, method: http.MethodPut, path: "sys/leases/renew", effect: true,
		body: map[string]any{"lease_id": id, "increment": whole(increment)}}
	out, err := l.client.do(ctx, one)
	if err != nil {
		return 0, err
	}
	if out.LeaseID != id {
		return 0, unexpected(one, "another lease")
	}
	return time.Duration(out.LeaseDuration) * time.Second, nil
}

// Revoke ends a lease, and returns when what it gave access to is gone. One
// that has ended already is no error. After any error the lease may go on:
// Lookup tells.
func (l *Leases) Revoke(ctx context.Context, id string) error {
	_, err := l.client.do(ctx, &call{op: opLeaseRevoke, method: http.MethodPut, path: "sys/leases/revoke", effect: true,
		body: map[string]any{"lease_id": id, "sync": true}})
	return err
}

// List returns the ids of the leases directly under a prefix such as
// "database/creds/orders". It needs sudo.
func (l *Leases) List(ctx context.Context, prefix string) ([]string, error) {
	prefix = strings.TrimSuffix(prefix, "/")
	names, err := l.client.list(ctx, opLeaseLookup, "sys/leases/lookup/"+prefix)
	ids := make([]string, 0, len(names))
	for _, name := range names {
		if !strings.HasSuffix(name, "/") { // a folder
			ids = append(ids, prefix+"/"+name)
		}
	}
	return ids, err
}

// RevokePrefix ends all leases under a prefix, and returns when they are gone.
// It needs sudo.
func (l *Leases) RevokePrefix(ctx context.Context, prefix string) error {
	_, err := l.client.do(ctx, &call{op: opLeaseRevoke, method: http.MethodPut, effect: true,
		path: "sys/leases/revoke-prefix/" + strings.TrimSuffix(prefix, "/"), body: map[string]any{"sync": true}})
	return err
}
