package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

func credentialCommand(a *app) *cobra.Command {
	return group("credential", "An account's ways to prove who it is", "", credentialAdd(a), credentialRemove(a))
}

func credentialAdd(a *app) *cobra.Command {
	var body wire.CredentialCreate
	var publicKey, out string
	var clientSecret bool
	c := &cobra.Command{
		Use: "add ACCOUNT (--public-key FILE | --issuer ID … | --client-secret …) --reason WHY", Short: "Give an account a way to prove who it is", Args: cobra.ExactArgs(1),
		Long: `add gives an account one more way to prove who it is:

  --public-key FILE          a key pair; the account keeps the private key. The
                             file is a public JWK or PEM (see brokerctl keygen)
  --issuer ID --subject SUB  a platform's token with exactly this subject
  --issuer ID --condition C  a platform's tokens for which this CEL expression
                             over "claims" holds
  --client-secret            a shared secret, made by the broker and shown this
                             once; only with --expires, at most 90 days ahead

A new secret goes to stdout or, with --out, to a new file with mode 0600.`,
		Example: `  brokerctl account credential add billing-worker --public-key worker.jwk --reason "first key"
  brokerctl account credential add sync --issuer cluster-1 --subject system:serviceaccount:sync:default --reason "moved to the cluster"
  brokerctl account credential add legacy --client-secret --expires 30d --out legacy.secret --reason "until it is migrated"`,
	}
	f := c.Flags()
	f.StringVar(&publicKey, "public-key", "", "file with a public key: JWK or PEM")
	f.StringVar(&body.Issuer, "issuer", "", "id of a trusted issuer (brokerctl issuer list)")
	f.StringVar(&body.Subject, "subject", "", "the exact sub of the platform's tokens")
	f.StringVar(&body.Condition, "condition", "", "CEL over claims, instead of --subject")
	f.BoolVar(&clientSecret, "client-secret", false, "let the broker make a shared secret")
	f.StringVar(&out, "out", "", "new file for the client secret; default: stdout")
	parsed(f, &body.ExpiresAt, a.instant, "time", "expires", "end date: a time, a date, or from now such as 30d")
	reasonFlag(c, &body.Reason)
	c.MarkFlagsOneRequired("public-key", "issuer", "client-secret")
	c.MarkFlagsMutuallyExclusive("public-key", "issuer", "client-secret")
	c.MarkFlagsMutuallyExclusive("subject", "condition")
	_ = c.MarkFlagFilename("public-key") // fails for a flag that doesn't exist
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], credential.ParseAccountID)
		if err != nil {
			return err
		}
		switch {
		case publicKey != "":
			body.Kind = wire.KindPublicKey
			key, err := readPublicKey(publicKey)
			if err != nil {
				return err
			}
			body.JWK = json.RawMessage(key.JWK())
		case clientSecret:
			body.Kind = wire.KindClientSecret
			if body.ExpiresAt.IsZero() {
				return usageError{errors.New("a client secret needs an end date: --expires, at most 90 days ahead")}
			}
		default:
			body.Kind = wire.KindPlatform
			if body.Subject == "" && body.Condition == "" {
				return usageError{errors.New("with --issuer, say whose tokens: --subject or --condition")}
			}
		}
		if out != "" && !clientSecret {
			return usageError{errors.New("--out is for --client-secret")}
		}
		return a.addCredential(ctx, id, body, out)
	})
	return c
}

func (a *app) addCredential(ctx context.Context, id credential.AccountID, body wire.CredentialCreate, out string) error {
	var file *os.File
	if out != "" { // before the secret exists: it can't be had again
		var err error
		if file, err = newPrivateFile(out); err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // closed below, where it counts
	}
	return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
		made, err := admin.Accounts().AddCredential(ctx, id, 0, body)
		if err != nil {
			if file != nil {
				_ = os.Remove(out) // empty
			}
			return err
		}
		if made.Secret.IsZero() {
			return a.printObject(made.Credential)
		}
		if file != nil {
			_, err := file.Write(append(made.Secret.Reveal(), '\n'))
			if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
				return fmt.Errorf("the secret was made but could not be written: remove credential %s and add another: %w", made.Credential.ID, err)
			}
			a.note("the secret is in %s", out)
			return a.printObject(made.Credential)
		}
		if a.output != outputTable {
			return a.printData(struct {
				wire.Credential
				ClientSecret string `json:"client_secret"`
			}{made.Credential, string(made.Secret.Reveal())})
		}
		a.note("credential %s, until %s. The secret is shown this once:", made.Credential.ID, when(made.Credential.ExpiresAt))
		_, err = fmt.Fprintf(a.out, "%s\n", made.Secret.Reveal())
		return err
	})
}

func credentialRemove(a *app) *cobra.Command {
	var reason string
	var version uint64
	var yes bool
	c := &cobra.Command{
		Use: "remove ACCOUNT CREDENTIAL --reason WHY", Short: "Take away one way to prove who it is", Args: cobra.ExactArgs(2),
		Long: `remove takes a credential away, and ends the tokens that the account holds: which
of them the credential bought, nobody can tell any more. Introspection and the
broker's own interface refuse them at once, services that verify by signature
alone when they expire. A worker that was moved to another credential before asks
for its next token with that one. An id that begins with - goes last, after two
dashes.`,
		Example: `  brokerctl account credential remove billing-worker 3q2-7w --reason "key rotated"
  brokerctl account credential remove --reason "key rotated" -- billing-worker -q27w3`,
	}
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	yesFlag(c, &yes)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], credential.ParseAccountID)
		if err != nil {
			return err
		}
		if err := a.confirm(yes, fmt.Sprintf("This removes a credential of %s: what still uses it gets no more tokens, and those that the account holds end.", id), args[1]); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			if err := admin.Accounts().RemoveCredential(ctx, id, args[1], version, reason); err != nil {
				return err
			}
			return a.done(gone{"credential", args[1], "removed"}, "removed credential %s of %s", args[1], id)
		})
	})
	return c
}

// readPublicKey reads a public key, JWK or PEM. A private key is refused: it
// has no business on its way to the broker. Without a kid the key is named by
// its thumbprint, as clients name it too.
func readPublicKey(path string) (jwks.Key, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the path is the user's own choice
	if err != nil {
		return jwks.Key{}, err
	}
	key, err := parsePublicKey(data)
	if err == nil && key.ID() == "" {
		key, err = jwks.NewKey(key.Thumbprint(), key.Algorithm(), key.Public())
	}
	if err != nil {
		return jwks.Key{}, usageError{fmt.Errorf("%s: %w", path, err)}
	}
	return key, nil
}

func parsePublicKey(data []byte) (jwks.Key, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return jwks.ParseKey(data)
	}
	if block.Type != "PUBLIC KEY" {
		return jwks.Key{}, fmt.Errorf("the PEM block is %q: a public key is needed, the private one stays with its account", block.Type)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return jwks.Key{}, err
	}
	alg := credential.RS256
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if alg = credential.ES256; k.Curve.Params().BitSize == 384 {
			alg = credential.ES384
		}
	case ed25519.PublicKey:
		alg = credential.EdDSA
	case *rsa.PublicKey:
	}
	return jwks.NewKey("", alg, pub)
}

// newPrivateFile makes a file that only its owner can read. It never replaces one.
func newPrivateFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the path is the user's own choice
	if errors.Is(err, fs.ErrExist) {
		return nil, usageError{fmt.Errorf("%s exists already; it is not overwritten", path)}
	}
	return f, err
}
