package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// checkKEK holds the keys about the key-encryption key to each other.
func (c *Config) checkKEK() error {
	d := c.doc
	switch {
	case d.KEKVaultKey == "":
		return nil
	case d.KEKFile != "":
		return &KeyError{"kek_vault_key", "not together with kek_file: to go from one to the other, see broker rekey --help"}
	case d.Vault.Address == "":
		return &KeyError{"kek_vault_key", "needs vault.address"}
	}
	if err := keys.CheckTransitName(d.KEKVaultKey); err != nil {
		return &KeyError{"kek_vault_key", err.Error()}
	}
	if err := keys.CheckTransitMount(d.KEKMount); err != nil {
		return &KeyError{"kek_vault_mount", err.Error()}
	}
	return nil
}

// checkHome checks where the signing keys are.
func (c *Config) checkHome() error {
	s := c.doc.Signing
	switch s.Home {
	case keys.SealedHome:
	case keys.TransitHome:
		if c.doc.Vault.Address == "" {
			return &KeyError{"signing.home", "vault-transit needs vault.address"}
		}
	default:
		return &KeyError{"signing.home", "sealed or vault-transit"}
	}
	if err := keys.CheckTransitMount(s.VaultMount); err != nil {
		return &KeyError{"signing.vault_mount", err.Error()}
	}
	if err := keys.CheckTransitName(s.VaultPrefix); err != nil || len(s.VaultPrefix) > maxVaultPrefix {
		return &KeyError{"signing.vault_key_prefix", fmt.Sprintf("1 to %d letters, digits and, after the first, . _ -", maxVaultPrefix)}
	}
	return nil
}

// maxVaultPrefix leaves room for the algorithm.
const maxVaultPrefix = 48

// homes returns the home of new keys, and the other one, if it can be had: keys
// of before may be there.
func (c *Config) homes(ctx context.Context, kek keys.KEK, client *vault.Client, logger *slog.Logger) ([]keys.Home, *keys.Transit, error) {
	sealed := keys.Sealed(kek)
	if client == nil {
		return []keys.Home{sealed}, nil, nil
	}
	transit, err := keys.NewTransit(ctx, keys.TransitConfig{
		Engine: func(mount string) keys.TransitEngine { return client.Transit(mount) },
		Mount:  c.doc.Signing.VaultMount, Prefix: c.doc.Signing.VaultPrefix, Logger: logger,
	})
	if err != nil {
		return nil, nil, err
	}
	if c.doc.Signing.Home == keys.TransitHome {
		return []keys.Home{transit, sealed}, transit, nil
	}
	return []keys.Home{sealed, transit}, transit, nil
}

// kekName names the key-encryption key for a person.
func (c *Config) kekName() string {
	if c.doc.KEKVaultKey != "" {
		return "Vault's " + c.doc.KEKMount + "/" + c.doc.KEKVaultKey
	}
	return c.doc.KEKFile
}

// reachVault returns a client for a command that can't do without Vault, nil
// where the configuration has none.
func reachVault(ctx context.Context, c Config, logger *slog.Logger) (*vault.Client, error) {
	if c.doc.Vault.Address == "" {
		return nil, nil
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	client, err := openVault(ctx, c, Deps{Logger: logger}, nil)
	if err != nil || c.doc.KEKVaultKey == "" && c.doc.Signing.Home != keys.TransitHome {
		return client, err
	}
	if s := client.Status(); !s.LoggedIn {
		return nil, fmt.Errorf("vault: %w", errors.Join(errors.New("not logged in"), s.LastError))
	}
	return client, nil
}

// renewEvery is how often the broker looks whether its key-encryption key has a
// newer version.
const renewEvery = time.Hour

// renewKEK seals keys anew that were sealed with an older version of the
// key-encryption key, until ctx ends. A failure is tried again at the next turn.
func (b *Broker) renewKEK(ctx context.Context) error {
	turn := time.NewTicker(renewEvery)
	defer turn.Stop()
	for {
		n, err := keys.Renew(ctx, b.store, b.signing.kek, b.deps.Now)
		switch {
		case err != nil && ctx.Err() == nil:
			b.deps.Logger.Warn("sealing keys anew under the newest version of the key-encryption key failed", "error", err)
		case n > 0:
			b.deps.Logger.Info("keys were sealed anew under the newest version of the key-encryption key", "keys", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-turn.C:
		}
	}
}

// transit shows how Vault signs.
func (m *metrics) transit(t *keys.Transit) {
	if t == nil {
		return
	}
	for _, c := range []struct {
		name, help string
		value      func(keys.TransitStats) uint64
	}{
		{"signatures_total", "Signatures asked of Vault.", func(s keys.TransitStats) uint64 { return s.Signatures }},
		{"calls_total", "Calls to Vault that asked for signatures.", func(s keys.TransitStats) uint64 { return s.Calls }},
		{"calls_failed_total", "Of these, calls that failed as a whole.", func(s keys.TransitStats) uint64 { return s.Failed }},
		{"outages_total", "Times that Vault was found unable to sign.", func(s keys.TransitStats) uint64 { return s.Outages }},
		{"probes_total", "Calls that found out whether Vault signs again.", func(s keys.TransitStats) uint64 { return s.Probes }},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tenantbroker_transit_" + c.name, Help: c.help,
		}, func() float64 { return float64(c.value(t.Stats())) }))
	}
}
