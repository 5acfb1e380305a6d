package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
)

// signingParts are the keys that the broker signs with.
type signingParts struct {
	kek     keys.KEK
	manager *keys.Manager // of access tokens; started
	audit   *audit.Signer // of the audit log's heads; nil: only auditLater has it
	// auditLater opens the audit key where the key-encryption key was out of
	// reach at the start.
	auditLater func(context.Context) (*audit.Signer, error)
	transit    *keys.Transit // the home in Vault; nil: none
}

// close ends what the keys' homes have going on.
func (p signingParts) close() {
	if p.transit != nil {
		p.transit.Close()
	}
}

// openKeys opens the signing keys with the key-encryption key, and makes those
// that don't exist yet. A key-encryption key that is not the store's is an error.
func openKeys(ctx context.Context, c Config, st store.Store, deps Deps, client *vault.Client) (parts signingParts, err error) {
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	kek, err := loadKEK(c, client, deps.Logger)
	if err != nil {
		return signingParts{}, err
	}
	auditKey := func(ctx context.Context) (*audit.Signer, error) { return keys.AuditKey(ctx, st, kek, deps.Now) }
	signer, err := auditKey(ctx)
	if errors.Is(err, keys.ErrKEK) {
		err = fmt.Errorf("%w; if the configuration names another one than before, run broker rekey --from-file or --from-vault-key", err)
	}
	if errors.Is(err, keys.ErrUnavailable) {
		deps.Logger.Error("the key that signs the audit log's heads can't be opened yet, the broker goes on trying", "error", err)
		signer, err = nil, nil
	}
	if err != nil {
		return signingParts{}, fmt.Errorf("%s: %w", c.kekName(), err)
	}
	homes, transit, err := c.homes(ctx, kek, client, deps.Logger)
	if err != nil {
		return signingParts{}, err
	}
	parts = signingParts{kek: kek, audit: signer, auditLater: auditKey, transit: transit}
	defer func() {
		if err != nil {
			parts.close()
		}
	}()
	manager, err := keys.New(keys.Config{
		Store: st, Home: homes[0], Others: homes[1:], Policy: c.policy(deps), Now: deps.Now, Logger: deps.Logger, Uptake: deps.uptake,
	})
	if err != nil {
		return parts, err
	}
	parts.manager = manager
	if err = manager.Start(ctx); err != nil {
		return parts, fmt.Errorf("%s: %w", c.kekName(), err)
	}
	return parts, nil
}

// issuerKeys are the keys as the issuer knows them: rotation and issuing never
// import each other.
type issuerKeys struct{ *keys.Manager }

// Active implements mint.Keys.
func (k issuerKeys) Active() (mint.Signer, error) {
	signer, err := k.Manager.Active()
	if err != nil {
		return nil, err // a nil *keys.Signer in the interface would not be nil
	}
	return signer, nil
}
