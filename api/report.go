package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Report is what /v1/report asks the parts of the broker. A part that is nil
// isn't there, and its section is absent. Texts of errors are shown to operators
// of the whole broker: Secrets leaves them out for others, and of those of
// Leases others get the outline.
type Report struct {
	Broker func(context.Context) wire.BrokerReport
	// Secrets and Leases report on what an operator sees.
	Secrets func(context.Context, registry.By) (wire.Listed[wire.SharedSecretReport], error)
	Leases  func(context.Context, registry.By) (wire.LeasesReport, error)
}

func reportRoutes() []route {
	return []route{{method: http.MethodGet, path: "/v1/report", role: registry.RoleViewer, do: report}}
}

// reportTime bounds the making of a report.
const reportTime = 20 * time.Second

func report(c *call) (answer, error) {
	ctx, cancel := context.WithTimeout(c.r.Context(), reportTime)
	defer cancel()
	out := wire.Report{At: c.now().UTC().Truncate(time.Second), Issuer: c.issuerURL, Tenant: c.by.Tenant}
	leave, err := c.declared.turns.take(ctx, crowd{tenant: c.by.Tenant})
	if err != nil {
		return answer{}, err
	}
	defer leave()
	declared, err := c.declared.of(ctx, c.registry, c.by, c.now)
	if err != nil {
		return answer{}, err
	}
	out.AnyTenant, out.ClientSecrets = declared.anyTenant, declared.clientSecrets
	if c.by.Tenant.IsSystem() && c.report.Broker != nil {
		broker := c.report.Broker(ctx)
		out.Broker = &broker
	}
	if c.report.Secrets != nil {
		secrets, err := c.report.Secrets(ctx, c.by)
		if err != nil {
			return answer{}, err
		}
		secrets.Items = notNil(secrets.Items)
		out.SharedSecrets = &secrets
	}
	if c.report.Leases != nil {
		leases, err := c.report.Leases(ctx, c.by)
		if err != nil {
			return answer{}, err
		}
		leases.Failing.Items = notNil(leases.Failing.Items)
		c.outlineLeases(leases.Failing.Items)
		out.Leases = &leases
	}
	return ok(out, 0)
}

// notNil is an empty list in JSON, and not null.
func notNil[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// declared is what a report says of what operators declared. To find it, every
// account is looked at: a second or two, where there are a million. So each
// tenant's operators get one report at a time, and hold up nobody else's, and
// what is found for the whole broker is kept for a while that grows with the
// effort, so that its reports take at most a twentieth of a CPU.
type declared struct {
	turns turns

	mu    sync.Mutex
	kept  exceptions // of the whole broker
	until time.Time
}

type exceptions struct {
	anyTenant     wire.Listed[wire.Grant]
	clientSecrets wire.Listed[wire.ClientSecretReport]
}

const (
	declaredCheap = 100 * time.Millisecond // what takes less is not kept
	declaredShare = 20                     // times as long as it took
	declaredFor   = 30 * time.Second
)

func (d *declared) of(ctx context.Context, g *registry.Registry, by registry.By, now func() time.Time) (exceptions, error) {
	if found, fresh := d.fresh(by.Tenant, now()); fresh {
		return found, nil
	}
	start := now()
	found, err := look(ctx, g, by)
	end := now()
	if took := end.Sub(start); err == nil && by.Tenant.IsSystem() && took >= declaredCheap {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.kept, d.until = found, end.Add(min(declaredShare*took, declaredFor))
	}
	return found, err
}

func (d *declared) fresh(of credential.Tenant, now time.Time) (exceptions, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.until.Sub(now)
	return d.kept, of.IsSystem() && left > 0 && left <= declaredFor
}

func look(ctx context.Context, g *registry.Registry, by registry.By) (out exceptions, err error) {
	grants, more, err := g.AnyTenantGrants(ctx, by)
	if err != nil {
		return out, err
	}
	out.anyTenant = wire.Listed[wire.Grant]{Items: make([]wire.Grant, 0, len(grants)), More: more}
	for _, grant := range grants {
		out.anyTenant.Items = append(out.anyTenant.Items, wireGrant(grant))
	}
	secrets, more, err := g.ClientSecrets(ctx, by)
	if err != nil {
		return out, err
	}
	out.clientSecrets = wire.Listed[wire.ClientSecretReport]{Items: make([]wire.ClientSecretReport, 0, len(secrets)), More: more}
	for _, s := range secrets {
		out.clientSecrets.Items = append(out.clientSecrets.Items, wire.ClientSecretReport(s))
	}
	return out, nil
}
