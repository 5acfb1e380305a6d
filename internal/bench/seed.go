package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const (
	wideTenants = 100_000 // tenants of the one account that has many
	perGrant    = 1_000   // of them in one grant
	chunk       = 10_000  // objects built in memory at a time
)

var (
	audience = credential.MustAudience("orders")
	scopes   = credential.MustScopes("orders:read")
	wide     = credential.MustAccountID("wide")
)

// world is a data folder with n tenants, accounts and grants, ready to serve.
type world struct {
	n      int
	wide   bool // the wide account is there
	config string
	store  string // the store's file
	issuer string
	key    *ecdsa.PrivateKey // of the platform that vouches for every account
}

// keyOf derives account i's key, so that a million need no storage.
func keyOf(i int) (*ecdsa.PrivateKey, error) {
	for salt := byte(0); ; salt++ {
		seed := binary.BigEndian.AppendUint64([]byte{salt}, uint64(i)) //nolint:gosec // i is not negative
		scalar := sha256.Sum256(seed)
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
		if err == nil || salt == 255 {
			return key, err
		}
	}
}

func jwkOf(key *ecdsa.PrivateKey) (jwks.Key, error) {
	k, err := jwks.NewKey("seed", credential.ES256, &key.PublicKey)
	if err != nil {
		return k, err
	}
	return jwks.NewKey(k.Thumbprint(), credential.ES256, &key.PublicKey)
}

func tenantOf(i int) credential.Tenant { return credential.MustTenant(fmt.Sprintf("tenant-%07d", i)) }
func accountOf(i int) credential.AccountID {
	return credential.MustAccountID(fmt.Sprintf("worker-%07d", i))
}

// seed makes the data folder with n tenants, accounts and grants.
func seed(ctx context.Context, folder, listen string, n int, changes ...func(*broker.Document)) (*world, error) {
	doc := broker.Default()
	doc.Issuer, doc.Listen, doc.Ops.Listen = "http://"+listen, listen, ""
	doc.Log.Level = "warn"
	doc.Limits.AccountPerSecond, doc.Limits.AccountBurst = 1_000_000, 1_000_000
	doc.Limits.TenantPerSecond, doc.Limits.TenantBurst = 1_000_000, 1_000_000
	for _, change := range changes {
		change(&doc)
	}
	quiet := slog.New(slog.DiscardHandler)
	made, err := broker.Init(ctx, broker.InitOptions{
		Folder: folder, Document: doc, Operator: "bench", Now: time.Now, Logger: quiet,
	})
	if err != nil {
		return nil, err
	}
	w, config, err := open(made.Config, n)
	if err != nil {
		return nil, err
	}
	st, err := bolt.Open(ctx, bolt.Options{Path: w.store, Writer: config.Document().Writer})
	if err != nil {
		return nil, err
	}
	by := registry.By{
		Subject: made.Operator, ClientID: made.Operator, Tenant: credential.System,
		Roles: credential.MustScopes("admin"), Reason: "benchmark",
	}
	reg := registry.New(st, config.Issuer(), time.Now)
	err = w.fill(ctx, reg, by)
	if err == nil {
		err = signHeads(ctx, st, config)
	}
	return w, errors.Join(err, st.Close())
}

// signHeads signs what the seeding has left to sign, as a broker would in its
// first minutes.
func signHeads(ctx context.Context, st store.Store, config broker.Config) error {
	kek, err := keys.LoadKeyFile(config.Document().KEKFile)
	if err != nil {
		return err
	}
	signer, err := keys.AuditKey(ctx, st, kek, time.Now)
	if err != nil {
		return err
	}
	keeper, err := auditlog.New(auditlog.Config{Store: st, Signer: signer, Issuer: config.Document().Issuer})
	if err != nil {
		return err
	}
	return keeper.Sign(ctx)
}

// open returns the world that was seeded under config.
func open(path string, n int) (*world, broker.Config, error) {
	config, err := broker.Load(path, broker.NoEnvironment)
	if err != nil {
		return nil, config, err
	}
	key, err := keyOf(1 << 40)
	if err != nil {
		return nil, config, err
	}
	return &world{
		n: n, wide: n >= wideTenants, config: path, store: config.StorePath(),
		issuer: config.Document().Issuer, key: key,
	}, config, nil
}

func (w *world) fill(ctx context.Context, reg *registry.Registry, by registry.By) error {
	public, err := jwkOf(w.key)
	if err != nil {
		return err
	}
	owner := credential.MustAccountID("orders-service")
	if _, err := reg.Import(ctx, by, registry.Objects{
		Issuers: []registry.TrustedIssuer{{
			ID: "platform", Issuer: "https://platform.example", Audience: w.issuer,
			JWKS: `{"keys":[` + string(public.JWK()) + `]}`, Algorithms: []credential.Algorithm{credential.ES256},
		}},
		Accounts:  []registry.Account{{ID: owner, Home: credential.System, Owner: "bench"}},
		Audiences: []registry.Audience{{Name: audience, Owner: owner}},
	}); err != nil {
		return err
	}
	for from := 0; from < w.n; from += chunk {
		o, err := objects(from, min(from+chunk, w.n))
		if err != nil {
			return err
		}
		if _, err := reg.Import(ctx, by, o); err != nil {
			return err
		}
	}
	if !w.wide {
		return nil
	}
	o, err := wideObjects()
	if err != nil {
		return err
	}
	_, err = reg.Import(ctx, by, o)
	return err
}

// objects are accounts from..to, each with a key, a platform identity and a
// grant for its own tenant.
func objects(from, to int) (o registry.Objects, err error) {
	for i := from; i < to; i++ {
		key, err := keyOf(i)
		if err != nil {
			return o, err
		}
		public, err := jwkOf(key)
		if err != nil {
			return o, err
		}
		o.Tenants = append(o.Tenants, registry.Tenant{ID: tenantOf(i)})
		o.Accounts = append(o.Accounts, registry.Account{
			ID: accountOf(i), Home: credential.System, Owner: "bench",
			Credentials: []registry.Credential{
				{Kind: registry.PublicKey, JWK: string(public.JWK())},
				{Kind: registry.Platform, Issuer: "platform", Subject: accountOf(i).String()},
			},
		})
		o.Grants = append(o.Grants, registry.Grant{
			Account: accountOf(i), Audience: audience, Scopes: scopes,
			Tenants: []credential.Tenant{tenantOf(i)}, Reason: "benchmark",
		})
	}
	return o, nil
}

func wideObjects() (o registry.Objects, err error) {
	key, err := keyOf(1 << 41)
	if err != nil {
		return o, err
	}
	public, err := jwkOf(key)
	if err != nil {
		return o, err
	}
	o.Accounts = []registry.Account{{
		ID: wide, Home: credential.System, Owner: "bench",
		Credentials: []registry.Credential{{Kind: registry.PublicKey, JWK: string(public.JWK())}},
	}}
	for from := 0; from < wideTenants; from += perGrant {
		g := registry.Grant{Account: wide, Audience: audience, Scopes: scopes, Reason: "benchmark"}
		for i := from; i < from+perGrant; i++ {
			g.Tenants = append(g.Tenants, tenantOf(i))
		}
		o.Grants = append(o.Grants, g)
	}
	return o, nil
}

// draw picks n numbers below limit by Zipf with exponent 1.1.
func draw(n, limit int) []int {
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, uint64(limit-1)) //nolint:gosec // a workload, not a secret
	out := make([]int, n)
	for i := range out {
		out[i] = int(zipf.Uint64()) //nolint:gosec // below limit
	}
	return out
}

// assertions are n token requests, each with a fresh assertion.
func (w *world) assertions(n int) ([][]byte, error) {
	bodies := make([][]byte, n)
	for at, i := range draw(n, w.n) {
		key, err := keyOf(i)
		if err != nil {
			return nil, err
		}
		if bodies[at], err = w.assertion(key, accountOf(i), tenantOf(i)); err != nil {
			return nil, err
		}
	}
	return bodies, nil
}

// wideAssertions are n token requests of the wide account, over its tenants.
func (w *world) wideAssertions(n int) ([][]byte, error) {
	key, err := keyOf(1 << 41)
	if err != nil {
		return nil, err
	}
	bodies := make([][]byte, n)
	for at, i := range draw(n, wideTenants) {
		if bodies[at], err = w.assertion(key, wide, tenantOf(i)); err != nil {
			return nil, err
		}
	}
	return bodies, nil
}

func (w *world) assertion(key *ecdsa.PrivateKey, account credential.AccountID, tenant credential.Tenant) ([]byte, error) {
	raw, err := signed(key, account.String(), account.String(), w.issuer, 4*time.Minute)
	if err != nil {
		return nil, err
	}
	return []byte(url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {raw},
		"audience":              {audience.String()},
		"tenant":                {tenant.String()},
	}.Encode()), nil
}

// vouched are n token exchanges with the platform's token, one per account.
func (w *world) vouched(n int) ([][]byte, error) {
	bodies := make([][]byte, n)
	perAccount := make(map[int][]byte)
	for at, i := range draw(n, w.n) {
		if perAccount[i] == nil {
			raw, err := signed(w.key, "https://platform.example", accountOf(i).String(), w.issuer, time.Hour)
			if err != nil {
				return nil, err
			}
			perAccount[i] = []byte(url.Values{
				"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
				"subject_token":      {raw},
				"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
				"audience":           {audience.String()},
				"tenant":             {tenantOf(i).String()},
			}.Encode())
		}
		bodies[at] = perAccount[i]
	}
	return bodies, nil
}

func signed(key *ecdsa.PrivateKey, issuer, subject, aud string, life time.Duration) (string, error) {
	public, err := jwkOf(key)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: public.ID()},
	}, nil)
	if err != nil {
		return "", err
	}
	now := time.Now()
	return jwt.Signed(signer).Claims(map[string]any{
		"iss": issuer, "sub": subject, "aud": aud, "jti": credential.NewID(),
		"iat": now.Unix(), "exp": now.Add(life).Unix(),
	}).Serialize()
}

func signedPayload(key *ecdsa.PrivateKey, payload []byte) (string, error) {
	public, err := jwkOf(key)
	if err != nil {
		return "", err
	}
	options := new(jose.SignerOptions).WithType("at+jwt")
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: public.ID()},
	}, options)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func storeBytes(w *world) int64 {
	info, err := os.Stat(w.store)
	if err != nil {
		return 0
	}
	return info.Size()
}
