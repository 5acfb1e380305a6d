package registry

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// HashSecret is the form in which a client secret is kept: the SHA-256 of its
// characters, in hex. The secret is 256 random bits, so that a slow hash would
// add nothing.
func HashSecret(s credential.Secret) string {
	sum := sha256.Sum256(s.Reveal())
	return hex.EncodeToString(sum[:])
}

// MatchSecret returns the account's client secret that presented is and that
// has not ended at now. Every secret of the account is compared, in constant time.
func (a *Account) MatchSecret(presented credential.Secret, now time.Time) (Credential, bool) {
	if presented.IsZero() {
		return Credential{}, false
	}
	hash := []byte(HashSecret(presented))
	var found Credential
	ok := false
	for _, c := range a.Credentials {
		if c.Kind != ClientSecret || !now.Before(c.ExpiresAt) {
			continue
		}
		if subtle.ConstantTimeCompare(hash, []byte(c.SecretHash)) == 1 {
			found, ok = c, true
		}
	}
	return found, ok
}

// AddCredential registers a public key or a platform identity for an account.
// The credential's id is the key's `kid`, or is assigned.
//
// Whoever adds a credential gets what the account is granted. So an operator's
// account needs the role admin, an account with an any_tenant grant the role
// security, and an operator bounded to a tenant may not do it for an account of
// its own with a grant that is not of that tenant alone. Platform credentials
// are for operators of the whole broker: the names that a platform gives belong
// to no tenant.
//
// Errors: ErrExists (same key or subject anywhere, same kid at the account),
// ErrInvalid, ErrNotFound, ErrChanged, ErrForbidden.
func (g *Registry) AddCredential(ctx context.Context, by By, id credential.AccountID, ifVersion uint64, add Credential) (Account, Credential, error) {
	if err := g.admit(by, actAddCredential); err != nil {
		return Account{}, Credential{}, err
	}
	ready, err := g.prepareCredential(by, add, instant(g.now()))
	if err != nil {
		return Account{}, Credential{}, err
	}
	a, err := g.updateAccount(ctx, by, accountChange{
		action: actAddCredential, event: "credential.added", empowers: true,
		edit: func(_, next *Account) error { return next.addCredential(ready) },
	}, id, ifVersion)
	return a, ready, err
}

// CreateClientSecret makes a client secret that ends at expiresAt, at most
// credential.MaxClientSecretLifetime ahead. The secret is returned here and
// never again: the registry keeps its hash. What AddCredential asks for accounts
// with special grants is asked here too.
func (g *Registry) CreateClientSecret(ctx context.Context, by By, id credential.AccountID, ifVersion uint64, expiresAt time.Time) (Account, Credential, credential.Secret, error) {
	now, expiresAt := instant(g.now()), instant(expiresAt)
	if err := g.admit(by, actClientSecret); err != nil {
		return Account{}, Credential{}, credential.Secret{}, err
	}
	switch {
	case expiresAt.IsZero():
		return Account{}, Credential{}, credential.Secret{}, invalid("expires_at", "is required")
	case !expiresAt.After(now):
		return Account{}, Credential{}, credential.Secret{}, invalid("expires_at", "is over already")
	case expiresAt.Sub(now) > credential.MaxClientSecretLifetime:
		return Account{}, Credential{}, credential.Secret{}, invalid("expires_at", "at most 90 days ahead")
	}
	secret := credential.GenerateSecret()
	made := Credential{
		ID: "s_" + credential.NewID(), Kind: ClientSecret, CreatedAt: now, ExpiresAt: expiresAt, SecretHash: HashSecret(secret),
	}
	a, err := g.updateAccount(ctx, by, accountChange{
		action: actClientSecret, event: "credential.added", empowers: true,
		edit: func(_, next *Account) error { return next.addCredential(made) },
	}, id, ifVersion)
	if err != nil {
		return Account{}, Credential{}, credential.Secret{}, err
	}
	made.SecretHash = ""
	return a, made, secret, nil
}

// RemoveCredential takes a credential away and ends the tokens that the account
// has: nobody can tell which of them were had with it. The account's version
// changes, so that a token decided on it is not released. The last credential
// of the last admin can't be removed: ErrInUse.
func (g *Registry) RemoveCredential(ctx context.Context, by By, id credential.AccountID, ifVersion uint64, credentialID string) (Account, error) {
	return g.updateAccount(ctx, by, accountChange{
		action: actRemoveCredential, event: "credential.removed", ends: true,
		edit: func(old, next *Account) error {
			next.Credentials = nil
			for _, c := range old.Credentials {
				if c.ID != credentialID {
					next.Credentials = append(next.Credentials, c)
				}
			}
			if len(next.Credentials) == len(old.Credentials) {
				return ErrNotFound
			}
			return nil
		},
	}, id, ifVersion)
}

func (a *Account) addCredential(c Credential) error {
	if len(a.Credentials) >= MaxCredentials {
		return invalid("credentials", "at most %d", MaxCredentials)
	}
	if _, taken := a.Credential(c.ID); taken {
		return fmt.Errorf("%w: a credential of the account with this id", ErrExists)
	}
	a.Credentials = append(a.Credentials, c)
	return nil
}

// prepareCredential checks what operators may bring along and fills in the rest.
func (g *Registry) prepareCredential(by By, c Credential, now time.Time) (Credential, error) {
	if c.SecretHash != "" || c.Kind == ClientSecret {
		return Credential{}, invalid("credentials", "client secrets are made by the broker, not brought along")
	}
	c.CreatedAt, c.ExpiresAt = now, instant(c.ExpiresAt)
	if err := checkEnd("credentials.expires_at", c.ExpiresAt, now); err != nil {
		return Credential{}, err
	}
	switch c.Kind {
	case PublicKey:
		return preparePublicKey(c)
	case Platform:
		// Before anything is looked at, so that the answer tells nothing of
		// what the broker trusts.
		if err := by.everywhere(); err != nil {
			return Credential{}, err
		}
		return g.preparePlatform(c)
	}
	return Credential{}, invalid("credentials.kind", "public_key or platform")
}

func preparePublicKey(c Credential) (Credential, error) {
	if c.Issuer != "" || c.Subject != "" || c.Condition != "" {
		return Credential{}, invalid("credentials", "a public key has no issuer, subject or condition")
	}
	if privateMaterial(c.JWK) {
		return Credential{}, invalid("credentials.jwk",
			"holds a private or symmetric key. Register the public part only, and replace this key: it has left its owner")
	}
	if len(c.JWK) > MaxPublicKeySize {
		return Credential{}, invalid("credentials.jwk", "at most %d bytes", MaxPublicKeySize)
	}
	key, err := jwks.ParseKey([]byte(c.JWK))
	if err != nil {
		// Says which rule, never what was sent: see ParseKey.
		return Credential{}, invalid("credentials.jwk", "%v", err)
	}
	if c.Algorithm != "" {
		bound, ok := key.WithAlgorithm(c.Algorithm)
		if !ok {
			return Credential{}, invalid("credentials.alg", "not an algorithm of this key")
		}
		key = bound
	}
	kid := key.ID()
	if kid == "" {
		kid = key.Thumbprint()
	}
	if !plainID(kid) {
		return Credential{}, invalid("credentials.jwk", "the kid is 1 to %d printable ASCII characters without space", MaxKeyIDLength)
	}
	// The canonical form: what else was in the document is not kept.
	if key, err = jwks.NewKey(kid, key.Algorithm(), key.Public()); err != nil {
		return Credential{}, invalid("credentials.jwk", "%v", err)
	}
	c.ID, c.Algorithm, c.JWK = kid, key.Algorithm(), string(key.JWK())
	return c, nil
}

func plainID(s string) bool {
	if s == "" || len(s) > MaxKeyIDLength {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// privateMaterial reports whether a document that should be public holds a
// private or symmetric key, as JSON or PEM, however broken it is otherwise.
func privateMaterial(doc string) bool {
	if strings.Contains(doc, "PRIVATE KEY") {
		return true
	}
	var v any
	if json.Unmarshal([]byte(doc), &v) != nil {
		return false
	}
	return privateMembers(v)
}

func privateMembers(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			switch name {
			case "d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv":
				return true
			}
			if privateMembers(value) {
				return true
			}
		}
	case []any:
		for _, value := range v {
			if privateMembers(value) {
				return true
			}
		}
	}
	return false
}

func (g *Registry) preparePlatform(c Credential) (Credential, error) {
	if c.JWK != "" || c.Algorithm != "" {
		return Credential{}, invalid("credentials", "a platform credential has no key of its own")
	}
	if _, err := credential.ParseAccountID(c.Issuer); err != nil {
		return Credential{}, invalid("credentials.issuer", "names a trusted issuer by its id")
	}
	switch {
	case (c.Subject == "") == (c.Condition == ""):
		return Credential{}, invalid("credentials.subject", "exactly one of subject and condition")
	case len(c.Subject) > MaxSubjectLength:
		return Credential{}, invalid("credentials.subject", "at most %d bytes", MaxSubjectLength)
	}
	if err := checkText("credentials.subject", c.Subject, MaxSubjectLength, false); err != nil {
		return Credential{}, err
	}
	if err := g.checkExpression("credentials.condition", CELCredential, c.Condition); err != nil {
		return Credential{}, err
	}
	c.ID = "p_" + credential.NewID()
	return c, nil
}

// checkExpression holds a CEL expression, where there is one, to its size and
// to what the checker says of it.
func (g *Registry) checkExpression(field, kind, expr string) error {
	if expr == "" {
		return nil
	}
	if len(expr) > MaxExpression {
		return invalid(field, "at most %d bytes", MaxExpression)
	}
	if err := g.checkCEL(kind, expr); err != nil {
		return invalid(field, "%v", err)
	}
	return nil
}

// checkIssuers holds platform credentials to issuers that exist.
func (c *change) checkIssuers(credentials []Credential) error {
	for _, cr := range credentials {
		if cr.Kind != Platform {
			continue
		}
		if _, err := c.Get(issuers, cr.Issuer); err != nil {
			return refusedReference(err, "credentials.issuer", "no such trusted issuer")
		}
	}
	return nil
}
