package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Leases are tenant-bound leases; *lease.Manager is one.
type Leases interface {
	Obtain(context.Context, lease.Holder, lease.Request) (lease.Granted, error)
	Renew(ctx context.Context, h lease.Holder, id string, ttl time.Duration) (lease.Granted, error)
	Release(ctx context.Context, h lease.Holder, id string) error
	Revoke(ctx context.Context, by registry.By, id string) error
	List(ctx context.Context, by registry.By, f lease.Filter, after string, limit int) ([]lease.Info, string, error)
}

// Leasing is what serving leases needs.
type Leasing struct {
	Verifier Verifier // of tokens for <issuer>/leases
	Leases   Leases
}

// workloadLeases is the audience of workloads' tokens here.
const workloadLeases = "leases"

func leaseRoutes() []route {
	return []route{
		{method: http.MethodPost, path: wire.PathLeases, workload: workloadLeases, serve: obtainLease},
		{method: http.MethodPost, path: wire.PathLeases + "/{id}/renew", workload: workloadLeases, serve: renewLease},
		// Its holder gives a lease back; an operator ends it. The token says who.
		{method: http.MethodDelete, path: wire.PathLeases + "/{id}", workload: workloadLeases, serve: releaseLease,
			role: registry.RoleSecurity, query: reasonParam, do: revokeLease},
		{method: http.MethodGet, path: wire.PathLeases, role: registry.RoleViewer,
			query: append([]string{"tenant", "account", "state"}, pageParams...), do: listLeases},
	}
}

func (s *server) serveLeases(cfg Config) error {
	if cfg.Leases == nil {
		return nil
	}
	if cfg.Leases.Verifier == nil || cfg.Leases.Leases == nil {
		return errors.New("api: leases need a verifier and somebody who makes them")
	}
	s.leases = cfg.Leases.Leases
	// Whether the grant is there is decided in the commit, see rotation/lease.
	w, err := s.newWorkload(cfg.Leases.Verifier, cfg.Issuer.Leases(),
		func(_ store.Reader, _ *registry.Account, t *verifier.Token) (bool, error) {
			return !t.Tenant().IsSystem(), nil
		})
	s.workloads[workloadLeases] = w
	return err
}

// holder is the workload as leases know it.
func (c *workloadCall) holder() lease.Holder {
	return lease.Holder{Claims: c.token.Claims(), RequestID: c.w.id, IP: ipText(c.w.ip)}
}

func obtainLease(c *workloadCall) (answer, error) {
	var in wire.LeaseRequest
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	of, err := credential.NewLeasable(in.Kind, in.Name)
	if err != nil {
		field := "name"
		if k := credential.LeaseKind(in.Kind); k != credential.LeaseDatabase && k != credential.LeaseKV {
			field = "kind"
		}
		return answer{}, refuse(wire.CodeInvalid, field, detailOf(err))
	}
	ttl, err := leaseTTL(in.TTL)
	if err != nil {
		return answer{}, err
	}
	granted, err := c.leases.Obtain(c.r.Context(), c.holder(), lease.Request{Of: of, TTL: ttl})
	if err != nil {
		return answer{}, c.leaseError(err)
	}
	return created(wireLease(granted), 0, "leases", granted.ID)
}

func renewLease(c *workloadCall) (answer, error) {
	var in wire.LeaseRenewal
	if c.r.ContentLength != 0 {
		if err := c.body(&in); err != nil {
			return answer{}, err
		}
	}
	ttl, err := leaseTTL(in.TTL)
	if err != nil {
		return answer{}, err
	}
	granted, err := c.leases.Renew(c.r.Context(), c.holder(), c.vars["id"], ttl)
	if err != nil {
		return answer{}, c.leaseError(err)
	}
	return ok(wireLease(granted), 0)
}

func releaseLease(c *workloadCall) (answer, error) {
	if c.query.get("reason") != "" {
		return answer{}, refuse(wire.CodeMalformed, "reason", "is for operators")
	}
	if err := c.leases.Release(c.r.Context(), c.holder(), c.vars["id"]); err != nil {
		return answer{}, c.leaseError(err)
	}
	return noContent()
}

// leaseError says that a token is of no use where that is so; the rest is in
// the table of errors.
func (c *workloadCall) leaseError(err error) error {
	if errors.Is(err, lease.ErrToken) {
		return c.unaccepted(err)
	}
	return err
}

// body reads a JSON body into v; see decodeStrict.
func (c *workloadCall) body(v any) error {
	data, err := jsonBody(c.r, "application/json")
	if err != nil {
		return err
	}
	return decodeStrict(data, v)
}

// leaseTTL reads an optional life in seconds.
func leaseTTL(seconds *int64) (time.Duration, error) {
	if seconds == nil {
		return 0, nil
	}
	least := int64(lease.MinTTL / time.Second)
	if *seconds < least {
		return 0, refuse(wire.CodeInvalid, "ttl", fmt.Sprintf("at least %d seconds", least))
	}
	// It only shortens: more than an hour is an hour.
	return time.Duration(min(*seconds, int64(lease.MaxTTL/time.Second))) * time.Second, nil
}

// wireLease is the one place where the data of a lease is shown.
func wireLease(g lease.Granted) wire.Lease {
	return wire.Lease{ID: g.ID, Data: g.Data.Reveal(), ExpiresAt: g.ExpiresAt}
}

func revokeLease(c *call) (answer, error) {
	c.by.Reason = c.query.get("reason") // a lease has no versions, so no If-Match
	if err := c.leases.Revoke(c.r.Context(), c.by, c.vars["id"]); err != nil {
		return answer{}, err
	}
	return noContent()
}

func listLeases(c *call) (answer, error) {
	if c.leases == nil {
		return answer{}, refuse(wire.CodeNotFound, "", "this broker gives no leases: its configuration names none")
	}
	after, limit, err := c.page("leases")
	if err != nil {
		return answer{}, err
	}
	f := lease.Filter{}
	if f.Tenant, err = queryValue(c, "tenant", credential.ParseTenant); err != nil {
		return answer{}, err
	}
	if f.Account, err = queryValue(c, "account", credential.ParseAccountID); err != nil {
		return answer{}, err
	}
	switch c.query.get("state") {
	case "":
	case wire.LeaseEnding:
		f.Ending = true
	default:
		return answer{}, refuse(wire.CodeMalformed, "state", "only "+wire.LeaseEnding+" can be asked for")
	}
	found, next, err := c.leases.List(c.r.Context(), c.by, f, after, limit)
	if err != nil {
		return answer{}, err
	}
	return listed("leases", found, next, c.leaseInfo)
}

func wireLeaseInfo(l lease.Info) wire.LeaseInfo {
	out := wire.LeaseInfo{
		ID: l.ID, Kind: string(l.Of.Kind()), Name: l.Of.Name(), Tenant: l.Tenant, Account: l.Account, State: string(l.State),
		Grant: l.Grant, User: l.User, CreatedAt: l.CreatedAt, ExpiresAt: l.ExpiresAt, Until: l.Until,
	}
	if l.UsedAt.After(l.CreatedAt) {
		out.RenewedAt = l.UsedAt
	}
	if e := l.Ending; e != nil {
		out.Ending = &wire.LeaseEnd{Reason: e.Reason, Since: e.Since, Attempts: e.Attempts, LastError: e.LastError, NextAt: e.NextAt}
	}
	return out
}
