package broker

import (
	"context"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/api/wire"
)

// report is what /v1/report asks.
func (b *Broker) report() api.Report { return api.Report{Broker: b.reportBroker} }

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
