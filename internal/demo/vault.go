package demo

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	setup "github.com/tenantbroker/tenantbroker/deploy/vault"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// vaultParts are the policies that the broker of the demo has, and no other.
var vaultParts = []string{"session", "signing", "kek", "kv"}

// custody is the Vault of the demo and the broker's own token there.
type custody struct {
	*devvault.Server
	token string
	file  string // with the token
}

// startVault starts a Vault and sets it up for the broker, as deploy/vault/setup
// does for an operator.
func (s *stage) startVault(ctx context.Context) error {
	s.chapter("A real Vault, with storage, TLS and an audit device, in a temporary folder")
	server, err := devvault.Start(ctx, devvault.Options{})
	if err != nil {
		return err
	}
	v := &custody{Server: server, file: filepath.Join(s.folder, "vault-token")}
	s.vault = v
	health, err := v.Health(ctx)
	if err != nil {
		return err
	}
	names := setup.DefaultNames()
	policies, err := names.Policies()
	if err != nil {
		return err
	}
	if err := errors.Join(
		v.Mount(ctx, "transit", names.Transit, nil),
		v.Mount(ctx, "kv", names.KV, map[string]string{"version": "2"}),
		v.root(ctx, http.MethodPost, names.Transit+"/keys/"+names.KEK, map[string]any{"type": "aes256-gcm96"}),
	); err != nil {
		return err
	}
	var attached []string
	for _, part := range vaultParts {
		attached = append(attached, names.Name+"-"+part)
		if err := v.root(ctx, http.MethodPut, "sys/policies/acl/"+names.Name+"-"+part, map[string]any{"policy": policies[part]}); err != nil {
			return err
		}
	}
	made, err := v.Do(ctx, http.MethodPost, "auth/token/create-orphan", map[string]any{
		"policies": attached, "no_default_policy": true, "period": "24h",
	})
	if err != nil {
		return err
	}
	auth, _ := made["auth"].(map[string]any)
	v.token, _ = auth["client_token"].(string)
	if err := os.WriteFile(v.file, []byte(v.token), 0o600); err != nil {
		return err
	}
	s.say("Vault %s at %s", health.Version, v.URL())
	s.say("the broker's login there has the policies of deploy/vault, and no more: %v", vaultParts)
	return nil
}

// root does something as root, for the set-up.
func (v *custody) root(ctx context.Context, method, path string, body map[string]any) error {
	_, err := v.Do(ctx, method, path, body)
	return err
}

// configure has a broker use the Vault.
func (v *custody) configure(doc *broker.Document) {
	doc.Vault.Address, doc.Vault.CAFile = v.URL(), v.CACert()
	doc.Vault.Login, doc.Vault.TokenFile = "token_file", v.file
	doc.KEKVaultKey = setup.DefaultNames().KEK
	doc.Signing.Home = keys.TransitHome
}

// inVault shows that the keys are where no broker can lose them, and what an
// outage of Vault does.
func (s *stage) inVault(ctx context.Context) error {
	s.chapter("The signing key was made in Vault, as transit/keys/tenantbroker-es256, and stays there")
	const key = "transit/keys/tenantbroker-es256"
	versions, err := s.vault.thumbprints(ctx, key)
	if err != nil {
		return err
	}
	j, err := credential.ParseJWS(s.acmeToken)
	if err != nil {
		return err
	}
	s.expect("the version of that key which signed acme's token", versions[j.KeyID()], "1")
	s.say("    Vault has %d versions: the standby is published before it signs", len(versions))
	for _, theft := range []struct {
		what, method, path string
		body               map[string]any
	}{
		{"the broker's login exports the key", http.MethodGet, "transit/export/signing-key/tenantbroker-es256", nil},
		{"the broker's login makes it exportable", http.MethodPut, key + "/config", map[string]any{"exportable": true}},
	} {
		_, err := s.vault.DoAs(ctx, s.vault.token, theft.method, theft.path, theft.body)
		said, ok := errors.AsType[*devvault.Error](err)
		if !ok {
			said = &devvault.Error{}
		}
		s.expect(theft.what, fmt.Sprint(said.Status), "403")
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(s.made.Config), "*"))
	if err != nil {
		return err
	}
	s.expect("a key-encryption key lies in the broker's folder", fmt.Sprint(slices.ContainsFunc(files, func(f string) bool {
		return filepath.Ext(f) == ".key"
	})), "false")
	return s.outage(ctx)
}

// outage seals Vault and brings it back.
func (s *stage) outage(ctx context.Context) error {
	ask := func(want string) (got string, err error) {
		for range 100 { // it is found out, and recovered from, by the next calls
			assertion, err := s.assertion()
			if err != nil {
				return "", err
			}
			status, answer, err := s.post(ctx, s.assertionForm(assertion, acme))
			if err != nil {
				return "", err
			}
			if got = fmt.Sprintf("%d %s", status, answer.Error); got == want {
				return got, nil
			}
			select {
			case <-ctx.Done():
				return "", ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
		}
		return got, nil
	}
	if err := s.vault.Seal(ctx); err != nil {
		return err
	}
	got, err := ask("503 temporarily_unavailable")
	if err != nil {
		return err
	}
	s.expect("Vault is sealed: no token, and no other key in its place", got, "503 temporarily_unavailable")
	if err := s.vault.Unseal(ctx); err != nil {
		return err
	}
	if got, err = ask("200 "); err != nil {
		return err
	}
	s.expect("Vault is unsealed: tokens again, nothing restarted", got, "200 ")
	return nil
}

// sign has Vault sign any payload, as who holds the broker's login can.
func (v *custody) sign(ctx context.Context, header string, payload []byte) (string, error) {
	input := header + "." + base64.RawURLEncoding.EncodeToString(payload)
	answer, err := v.DoAs(ctx, v.token, http.MethodPut, "transit/sign/tenantbroker-es256", map[string]any{
		"input": base64.StdEncoding.EncodeToString([]byte(input)), "key_version": 1,
		"hash_algorithm": "sha2-256", "marshaling_algorithm": "jws",
	})
	if err != nil {
		return "", err
	}
	data, _ := answer["data"].(map[string]any)
	signature, _ := data["signature"].(string)
	return input + "." + strings.TrimPrefix(signature, "vault:v1:"), nil
}

// thumbprints are the ids of all versions of a Transit key, with their numbers.
func (v *custody) thumbprints(ctx context.Context, key string) (map[string]string, error) {
	answer, err := v.Do(ctx, http.MethodGet, key, nil)
	if err != nil {
		return nil, err
	}
	data, _ := answer["data"].(map[string]any)
	versions, _ := data["keys"].(map[string]any)
	ids := make(map[string]string)
	for _, number := range slices.Sorted(maps.Keys(versions)) {
		version, _ := versions[number].(map[string]any)
		text, _ := version["public_key"].(string)
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return nil, fmt.Errorf("demo: version %s of %s has no public key", number, key)
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		k, err := jwks.NewKey("", credential.ES256, public)
		if err != nil {
			return nil, err
		}
		ids[k.Thumbprint()] = number
	}
	return ids, nil
}
