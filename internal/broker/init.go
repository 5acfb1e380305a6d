package broker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// File names that Init gives.
const (
	configFile   = "broker.yaml"
	kekFile      = "kek.key"
	operatorFile = "operator.pem"
)

// InitOptions say what a new data folder is for.
type InitOptions struct {
	Folder   string   // must not exist, or be empty
	Document Document // issuer is required; data_dir is set here, and kek_file unless there is kek_vault_key
	Operator string   // account id of the first operator, default "admin"
	Now      func() time.Time
	Logger   *slog.Logger
	Policy   func(keys.Policy) keys.Policy // as in Deps
}

// Initialized is what Init made.
type Initialized struct {
	Config      string // path of the configuration file
	KEK         string // path of the key-encryption key; empty: it is in Vault
	Operator    credential.AccountID
	OperatorKey string // path of the operator's private key, PEM
}

// Init makes a data folder, mode 0700, with a configuration, a key-encryption
// key, a store with its signing keys, and the first operator, an admin who
// signs in with a private key; every file with mode 0600. It overwrites
// nothing, and takes away what it made if it can't finish.
func Init(ctx context.Context, o InitOptions) (made Initialized, err error) {
	operator, err := credential.ParseAccountID(o.Operator)
	if err != nil {
		return made, err
	}
	folder, err := filepath.Abs(o.Folder)
	if err != nil {
		return made, err
	}
	made = Initialized{
		Config:      filepath.Join(folder, configFile),
		KEK:         filepath.Join(folder, kekFile),
		Operator:    operator,
		OperatorKey: filepath.Join(folder, operatorFile),
	}
	// Relative in the file, so that the folder can be moved.
	o.Document.DataDir = "."
	if o.Document.KEKFile = kekFile; o.Document.KEKVaultKey != "" {
		o.Document.KEKFile, made.KEK = "", ""
	}
	text := Render(o.Document)
	config, err := Parse(text, folder, NoEnvironment)
	if err != nil {
		return made, err
	}
	config.source = made.Config
	if err := makeFolder(folder); err != nil {
		return made, fmt.Errorf("init: %w", err)
	}
	defer func() {
		if err != nil { // the folder was empty before
			for _, path := range []string{made.Config, made.KEK, made.OperatorKey, config.StorePath()} {
				_ = os.Remove(path) // none has the name ""
			}
		}
	}()
	if made.KEK != "" {
		if err := keys.GenerateKeyFile(made.KEK); err != nil {
			return made, fmt.Errorf("init: %w", err)
		}
	}
	if err := initStore(ctx, o, config, made); err != nil {
		return made, fmt.Errorf("init: %w", err)
	}
	// Last: a folder with a configuration is one that can be served.
	if err := writeNew(made.Config, text); err != nil {
		return made, fmt.Errorf("init: %w", err)
	}
	return made, nil
}

// initStore makes the store, its keys and the first operator.
func initStore(ctx context.Context, o InitOptions, c Config, made Initialized) (err error) {
	if err := checkFresh(c.StorePath()); err != nil {
		return err
	}
	st, _, err := openStore(ctx, c.StorePath(), c, bolt.Options{Now: o.Now, Logger: o.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := claim(ctx, st, c.issuer, o.Now()); err != nil {
		return err
	}
	client, err := reachVault(ctx, c, o.Logger)
	if err != nil {
		return err
	}
	parts, err := openKeys(ctx, c, st, Deps{Now: o.Now, Logger: o.Logger, Policy: o.Policy}, client)
	if err != nil {
		return err
	}
	defer parts.close()
	if _, err := parts.auditLater(ctx); err != nil {
		return err
	}
	if err := parts.manager.Ready(); err != nil {
		return err
	}
	private, public, err := NewAccountKey()
	if err != nil {
		return err
	}
	if err := writeNew(made.OperatorKey, private); err != nil {
		return err
	}
	_, _, err = registry.New(st, c.issuer, o.Now).Bootstrap(ctx, registry.Bootstrap{
		Account: made.Operator, Owner: "the operator of this broker", PublicKey: string(public.JWK()),
		Reason: "the first operator, made with the data folder",
	})
	return err
}

// NewAccountKey makes a key pair for an account that signs in with
// private_key_jwt: the private key as PKCS #8 PEM, which is for its owner's
// file alone, and the public one under its thumbprint as key id.
func NewAccountKey() (private []byte, public jwks.Key, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, jwks.Key{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, jwks.Key{}, err
	}
	unnamed, err := jwks.NewKey("", credential.ES256, key.Public())
	if err != nil {
		return nil, jwks.Key{}, err
	}
	public, err = jwks.NewKey(unnamed.Thumbprint(), credential.ES256, key.Public())
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), public, err
}

// checkFresh refuses a path at which anything is.
func checkFresh(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, orExists(err))
	}
	return nil
}
