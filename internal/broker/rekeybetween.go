package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
)

// FormerKEK names a key-encryption key of before: a key file, or a Transit key
// of the Vault that the configuration names.
type FormerKEK struct {
	File     string
	VaultKey string
	Mount    string // of VaultKey; default "transit"
}

var errFormerKEK = errors.New("name one key-encryption key of before: a file, or a key in Vault, for which the configuration needs its vault section")

// between seals the store anew from the key-encryption key of before to that of
// the configuration, where either may be a key file or in Vault. Without one of
// before it does so from the old versions of a key in Vault to its newest. A key
// file that doesn't exist yet is made. It changes the store in one commit, so
// when it is cut off it is done or not done, and can be called again.
func (o RekeyOptions) between(ctx context.Context, st store.Store) (done Rekeyed, err error) {
	c := o.Config
	done.File, done.Name = c.doc.KEKFile, c.kekName()
	client, err := o.reachVault(ctx)
	if err != nil {
		return done, err
	}
	from := o.From
	switch {
	case from == FormerKEK{}:
		kek, err := loadKEK(c, client, o.Logger)
		if err == nil {
			done.Keys, err = keys.Renew(ctx, st, kek, o.Now)
		}
		if err == nil {
			err = keys.OpensAll(ctx, st, kek)
		}
		return done, err
	case (from.File == "") == (from.VaultKey == ""), from.VaultKey != "" && client == nil:
		return done, errFormerKEK
	}
	former, err := from.load(client)
	if err != nil {
		return done, err
	}
	if c.doc.KEKFile != "" {
		if _, err := os.Stat(c.doc.KEKFile); errors.Is(err, fs.ErrNotExist) {
			if err := keys.GenerateKeyFile(c.doc.KEKFile); err != nil {
				return done, err
			}
		}
	}
	next, err := loadKEK(c, client, o.Logger)
	if err != nil {
		return done, err
	}
	done.Former = from.File
	done.Keys, err = keys.Rewrap(ctx, st, former, next, o.Now)
	return done, err
}

// reachVault logs in where Vault has the key of before or the one to come.
func (o RekeyOptions) reachVault(ctx context.Context) (*vault.Client, error) {
	client, err := reachVault(ctx, o.Config, o.Logger)
	if err == nil && client != nil && o.From.VaultKey != "" && !client.Status().LoggedIn {
		err = fmt.Errorf("vault: not logged in: %w", client.Status().LastError)
	}
	return client, err
}

func (k FormerKEK) load(client *vault.Client) (keys.KEK, error) {
	if k.File != "" {
		return keys.LoadKeyFile(k.File)
	}
	if k.Mount == "" {
		k.Mount = keys.DefaultTransitMount
	}
	return keys.NewTransitKEK(client.Transit(k.Mount), k.Mount, k.VaultKey)
}
