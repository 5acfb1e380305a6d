package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
)

// Stored objects are decoded strictly: a row that this program would not have
// written is an error, and an error denies.

// decode reads row into v. check says whether what every object of the type
// has is there, and which key it belongs under.
func decode(row store.Row, v any, check func() (id string, whole bool)) error {
	d := json.NewDecoder(bytes.NewReader(row.Value))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("registry: stored row: %w", err)
	}
	if _, err := d.Token(); err == nil {
		return errors.New("registry: stored row: more than one value")
	}
	switch id, whole := check(); {
	case id == "" || !whole:
		return errors.New("registry: stored row: not whole")
	case id != row.Key:
		return errors.New("registry: stored row: under another key than its own")
	}
	return nil
}

func decodeTenant(row store.Row) (*Tenant, error) {
	t := &Tenant{}
	if err := decode(row, t, func() (string, bool) {
		return t.ID.String(), t.State == TenantActive || t.State == TenantSuspended
	}); err != nil {
		return nil, err
	}
	t.Version = row.Version
	return t, nil
}

func decodeAccount(row store.Row) (*Account, error) {
	a := &Account{}
	if err := decode(row, a, func() (string, bool) { return a.ID.String(), !a.Home.IsZero() }); err != nil {
		return nil, err
	}
	a.Version = row.Version
	if err := a.parseKeys(); err != nil {
		return nil, err
	}
	return a, nil
}

func decodeAudience(row store.Row) (*Audience, error) {
	a := &Audience{}
	if err := decode(row, a, func() (string, bool) { return a.Name.String(), !a.Owner.IsZero() }); err != nil {
		return nil, err
	}
	a.Version = row.Version
	return a, nil
}

func decodeGrant(row store.Row) (*Grant, error) {
	g := &Grant{}
	if err := decode(row, g, func() (string, bool) { return g.ID, !g.Account.IsZero() && !g.Audience.IsZero() }); err != nil {
		return nil, err
	}
	g.Version = row.Version
	return g, nil
}

func decodeIssuer(row store.Row) (*TrustedIssuer, error) {
	i := &TrustedIssuer{}
	if err := decode(row, i, func() (string, bool) { return i.ID, i.Issuer != "" }); err != nil {
		return nil, err
	}
	i.Version = row.Version
	return i, nil
}

// parseKeys fills in what Key answers from.
func (a *Account) parseKeys() error {
	a.keys = nil
	for _, c := range a.Credentials {
		if c.Kind != PublicKey {
			continue
		}
		key, err := jwks.ParseKey([]byte(c.JWK))
		if err != nil {
			return fmt.Errorf("registry: stored key: %w", err)
		}
		if key.ID() != c.ID || key.Algorithm() != c.Algorithm {
			return errors.New("registry: stored key: not the one that its credential names")
		}
		if a.keys == nil {
			a.keys = make(map[string]jwks.Key, len(a.Credentials))
		}
		a.keys[c.ID] = key
	}
	return nil
}

// Key returns the account's registered key with this id. Whether its
// credential has expired is for the caller to check.
func (a *Account) Key(kid string) (jwks.Key, bool) {
	k, ok := a.keys[kid]
	return k, ok
}

// SoleKey returns the only registered key of an account that has exactly one:
// for an assertion without `kid`.
func (a *Account) SoleKey() (jwks.Key, bool) {
	if len(a.keys) != 1 {
		return jwks.Key{}, false
	}
	for _, k := range a.keys {
		return k, true
	}
	return jwks.Key{}, false
}

// Credential returns the account's credential with this id.
func (a *Account) Credential(id string) (Credential, bool) {
	for _, c := range a.Credentials {
		if c.ID == id {
			return c, true
		}
	}
	return Credential{}, false
}

// load reads and decodes one object, past the cache: for operators, who may
// keep and change what they get.
func load[T any](r store.Reader, t store.Table, key string, decode func(store.Row) (*T, error)) (*T, error) {
	row, err := r.Get(t, key)
	if err != nil {
		return nil, err
	}
	return decode(row)
}

func loadTenant(r store.Reader, id credential.Tenant) (*Tenant, error) {
	return load(r, tenants, id.String(), decodeTenant)
}

func loadAccount(r store.Reader, id credential.AccountID) (*Account, error) {
	return load(r, accounts, id.String(), decodeAccount)
}

func loadAudience(r store.Reader, name credential.Audience) (*Audience, error) {
	return load(r, audiences, name.String(), decodeAudience)
}

func loadIssuer(r store.Reader, id string) (*TrustedIssuer, error) {
	return load(r, issuers, id, decodeIssuer)
}
