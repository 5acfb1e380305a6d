package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// openVault makes the client of Vault, nil if there is none in the
// configuration, and tries to log in. A Vault that is down is no error: the
// broker starts, and does what it can without. What lives in Vault is missing
// until it is back; what is sealed here goes on.
func openVault(ctx context.Context, c Config, deps Deps, registerer prometheus.Registerer) (*vault.Client, error) {
	if c.doc.Vault.Address == "" {
		return nil, nil
	}
	config := c.vault()
	config.Logger, config.Registerer = deps.Logger, registerer
	config.Now = time.Now // Vault's tokens end by its clock, which nobody turns
	client, err := vault.New(config)
	if err != nil {
		return nil, err
	}
	if err := client.Login(ctx); err != nil {
		deps.Logger.Error("not logged in to Vault yet, the broker goes on trying", "method", c.doc.Vault.Login, "error", err)
	}
	return client, nil
}

// Vault returns the client of Vault, nil if the broker has none.
func (b *Broker) Vault() *vault.Client { return b.vault }

// keepVault keeps the login to Vault, if there is one.
func (b *Broker) keepVault(ctx context.Context) error {
	if b.vault == nil {
		<-ctx.Done()
		return nil
	}
	return b.vault.Run(ctx)
}

// vaultCheck is what /readyz says of Vault. A broker whose key is sealed here
// issues whether Vault is up or not, so its outage only degrades it; one whose
// key is in Vault can't answer without it.
func (b *Broker) vaultCheck(context.Context) error {
	err := vaultProblem(b.vault.Status())
	if err == nil || b.signsInVault() {
		return err
	}
	return api.Degraded(err)
}

func vaultProblem(s vault.Status) error {
	switch {
	case !s.UnreachableSince.IsZero():
		return fmt.Errorf("since %s: %w", s.UnreachableSince.UTC().Format(time.RFC3339), s.LastError)
	case !s.LoggedIn && s.LastError != nil:
		return fmt.Errorf("not logged in: %w", s.LastError)
	case !s.LoggedIn:
		return errors.New("not logged in yet")
	}
	return nil
}

// signsInVault reports whether the key that signs now lives in Vault, which
// during a change of home is not what the configuration says.
func (b *Broker) signsInVault() bool {
	return slices.ContainsFunc(b.signing.manager.List(), func(k keys.KeyInfo) bool {
		return k.State == keys.Active && k.Home == keys.TransitHome
	})
}
