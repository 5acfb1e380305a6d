package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

func keygenCommand(a *app) *cobra.Command {
	alg := credential.ES256
	c := &cobra.Command{
		Use: "keygen FILE", Short: "Make a key pair for an account", Args: cobra.ExactArgs(1),
		Long: `keygen makes a key pair. The private key goes to a new file (PEM, mode 0600), which
stays with the workload; the public one goes to stdout as a JWK, to be registered
with: brokerctl account credential add ACCOUNT --public-key FILE`,
		Example: "  brokerctl keygen worker.pem > worker.jwk",
	}
	parsed(c.Flags(), &alg, keygenAlgorithm, "algorithm", "alg", "ES256 (default), ES384, EdDSA or RS256")
	c.RunE = a.does(func(_ context.Context, args []string) error {
		private, public, err := newKeyPair(alg)
		if err != nil {
			return err
		}
		f, err := newPrivateFile(args[0])
		if err != nil {
			return err
		}
		_, err = f.Write(private)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			_ = os.Remove(args[0])
			return err
		}
		a.note("the private key is in %s", args[0])
		if a.output != outputTable {
			return a.printData(json.RawMessage(public.JWK()))
		}
		_, err = fmt.Fprintf(a.out, "%s\n", public.JWK())
		return err
	})
	return c
}

// keygenAlgorithm refuses PS256: the key file would not say that the key is not
// for RS256.
func keygenAlgorithm(s string) (credential.Algorithm, error) {
	alg, err := credential.ParseAlgorithm(s)
	if err != nil || alg == credential.PS256 {
		return "", errors.New("one of ES256, ES384, EdDSA, RS256")
	}
	return alg, nil
}

// newKeyPair makes a key under its thumbprint as key id.
func newKeyPair(alg credential.Algorithm) (private []byte, public jwks.Key, err error) {
	var key crypto.Signer
	switch alg {
	case credential.ES384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case credential.EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case credential.RS256:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, public, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, public, err
	}
	unnamed, err := jwks.NewKey("", alg, key.Public())
	if err != nil {
		return nil, public, err
	}
	public, err = jwks.NewKey(unnamed.Thumbprint(), alg, key.Public())
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), public, err
}
