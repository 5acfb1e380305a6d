package broker

import (
	"context"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// report is what /v1/report asks.
func (b *Broker) report() api.Report {
	r := api.Report{Broker: b.reportBroker}
	if b.secrets != nil {
		r.Secrets = func(ctx context.Context, by registry.By) (wire.Listed[wire.SharedSecretReport], error) {
			return reportSecrets(ctx, b.secrets, by)
		}
	}
	if b.leases != nil {
		r.Leases = func(ctx context.Context, by registry.By) (wire.LeasesReport, error) {
			return reportLeases(ctx, b.leases, by)
		}
	}
	return r
}

func (b *Broker) reportBroker(ctx context.Context) wire.BrokerReport {
	out := wire.BrokerReport{Version: b.version(), Keys: b.reportKeys()}
	if err := b.store.Healthy(); err != nil {
		out.Store.Problem = err.Error()
	} else {
		out.Store.Healthy = true
	}
	out.Audit.Interval = b.config.doc.Audit.HeadInterval.String()
	unsigned, err := b.keeper.Unsigned(ctx)
	if err != nil {
		out.Audit.Problem = err.Error()
	}
	out.Audit.Unsigned = unsigned
	if b.vault != nil {
		vault := b.reportVault()
		out.Vault = &vault
	}
	return out
}

func (b *Broker) reportKeys() wire.KeysReport {
	m := b.signing.manager
	out := wire.KeysReport{Ready: true, Overdue: overdue(m, b.deps.Now()), Keys: []wire.Key{}}
	if err := m.Ready(); err != nil {
		out.Ready, out.Problem = false, err.Error()
	}
	if err := b.kek.problem(); err != nil {
		out.KEKProblem = err.Error()
	}
	out.ForeignProblem = m.Foreign()
	for _, k := range m.List() {
		out.Keys = append(out.Keys, api.WireKey(k))
	}
	wait := m.Waiting()
	out.Waiting, out.Due, out.Until, out.Missing = string(wait.For), wait.Due, wait.Until, wait.Missing
	return out
}

// reportVault tells what the client knows. It asks nobody: a report doesn't
// wait for a Vault that is away.
func (b *Broker) reportVault() wire.VaultReport {
	s := b.vault.Status()
	out := wire.VaultReport{
		Reachable: s.UnreachableSince.IsZero(), UnreachableSince: s.UnreachableSince, Sealed: s.Sealed, Standby: s.Standby,
		Login: s.Method, LoggedIn: s.LoggedIn, LoggedInAt: s.LoggedInAt, TokenExpiresAt: s.TokenExpiry,
	}
	if s.LastError != nil {
		out.LastError, out.LastErrorAt = s.LastError.Error(), s.LastErrorAt
	}
	return out
}

// Bounds of what a report reads of leases.
const (
	leasesPage  = 500
	leasesPages = 200 // at most; each looks at 10,000 rows or fewer
)

// reportLeases counts the leases that an operator sees, and lists those that
// should have ended and didn't at the first attempt.
func reportLeases(ctx context.Context, m *lease.Manager, by registry.By) (out wire.LeasesReport, err error) {
	after := ""
	for range leasesPages {
		found, next, err := m.List(ctx, by, lease.Filter{}, after, leasesPage)
		if err != nil {
			return out, err
		}
		for _, l := range found {
			switch {
			case l.State == lease.Unreadable:
				if out.Unreadable == nil {
					out.Unreadable = new(wire.Listed[wire.UnreadableLease])
				}
				if len(out.Unreadable.Items) < registry.MaxReported {
					out.Unreadable.Items = append(out.Unreadable.Items, wire.UnreadableLease{ID: l.ID, Tenant: l.Tenant, Account: l.Account})
				} else {
					out.Unreadable.More++
				}
			case l.Ending == nil:
				out.Active++
			case l.Ending.Attempts == 0:
				out.Ending++
			case len(out.Failing.Items) < registry.MaxReported:
				out.Ending++
				out.Failing.Items = append(out.Failing.Items, failingLease(l))
			default:
				out.Ending++
				out.Failing.More++
			}
		}
		if after = next; after == "" {
			break
		}
	}
	return out, nil
}

func failingLease(l lease.Info) wire.LeaseReport {
	return wire.LeaseReport{
		ID: l.ID, Kind: string(l.Of.Kind()), Name: l.Of.Name(), Tenant: l.Tenant, Account: l.Account, Reason: l.Ending.Reason,
		Since: l.Ending.Since, Attempts: l.Ending.Attempts, LastError: l.Ending.LastError, NextAt: l.Ending.NextAt,
	}
}
