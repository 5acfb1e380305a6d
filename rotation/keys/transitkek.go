package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// TransitSealer is Vault's Transit engine at one mount, as far as it seals;
// *vault.Transit is one. It needs the right to update encrypt/NAME and
// decrypt/NAME, and no other.
type TransitSealer interface {
	Encrypt(ctx context.Context, name string, plaintext, aad []byte) (string, error)
	Decrypt(ctx context.Context, name, ciphertext string, aad []byte) ([]byte, error)
}

// Aging is a KEK that has versions. What was sealed with an older one opens, and
// should be sealed anew: see Renew.
type Aging interface {
	KEK
	// Newest returns the version that Seal uses now.
	Newest(ctx context.Context) (int, error)
	// Age returns the version that sealed was sealed with; an error as Open has.
	Age(sealed []byte) (int, error)
}

const (
	transitSealedVersion = 2 // the first byte; 1 is a key file's
	transitSealedForm    = 1
	maxTransitSealed     = 1 << 20
)

// transitKEK is a key of Transit as key-encryption key. Vault's rewrap knows no
// associated data, and reading the key asks for a right of its own; so what is
// newest is told by what Vault seals with.
type transitKEK struct {
	engine     TransitSealer
	mount, key string
}

// NewTransitKEK returns a key of Vault's Transit engine at mount, which must be
// of type aes256-gcm96, as a key-encryption key. Nothing is sent to Vault before
// it is used.
func NewTransitKEK(engine TransitSealer, mount, key string) (KEK, error) {
	if err := errors.Join(CheckTransitMount(mount), CheckTransitName(key)); err != nil {
		return nil, err
	}
	return &transitKEK{engine, mount, key}, nil
}

// transitSealed is what follows the first byte. It names the key, so that
// another key and altered bytes are told apart.
type transitSealed struct {
	Form       int    `json:"form"`
	Mount      string `json:"mount"`
	Key        string `json:"key"`
	Ciphertext string `json:"ciphertext"`
}

// Seal implements KEK.
func (k *transitKEK) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ciphertext, err := k.engine.Encrypt(ctx, k.key, plaintext, aad)
	if err != nil {
		return nil, k.refused(err)
	}
	if _, err := vault.CiphertextVersion(ciphertext); err != nil {
		return nil, fmt.Errorf("keys: sealing failed: %w", err)
	}
	sealed := transitSealed{transitSealedForm, k.mount, k.key, ciphertext}
	return append([]byte{transitSealedVersion}, encode(sealed)...), nil
}

// Open implements KEK.
func (k *transitKEK) Open(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	s, _, err := k.parse(sealed)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	plain, err := k.engine.Decrypt(ctx, k.key, s.Ciphertext, aad)
	if err != nil {
		return nil, k.refused(err)
	}
	return plain, nil
}

// Newest implements Aging.
func (k *transitKEK) Newest(ctx context.Context) (int, error) {
	sealed, err := k.Seal(ctx, []byte("probe"), []byte("tenantbroker probe 1"))
	if err != nil {
		return 0, err
	}
	return k.Age(sealed)
}

// Age implements Aging.
func (k *transitKEK) Age(sealed []byte) (int, error) {
	_, version, err := k.parse(sealed)
	return version, err
}

func (k *transitKEK) parse(sealed []byte) (transitSealed, int, error) {
	s, version, err := parseTransitSealed(sealed)
	if err == nil && (s.Mount != k.mount || s.Key != k.key) {
		err = fmt.Errorf("%w: Vault's %s/%s, not %s/%s", ErrKEK, s.Mount, s.Key, k.mount, k.key)
	}
	return s, version, err
}

// parseTransitSealed takes exactly what Seal gives. What a key file has sealed
// is ErrKEK, anything else ErrSealed.
func parseTransitSealed(sealed []byte) (s transitSealed, version int, err error) {
	switch {
	case len(sealed) > 1+kekIDSize && sealed[0] == sealedVersion:
		return s, 0, fmt.Errorf("%w: a key file, not a key in Vault", ErrKEK)
	case len(sealed) == 0 || len(sealed) > maxTransitSealed || sealed[0] != transitSealedVersion:
		return s, 0, fmt.Errorf("%w: unknown form", ErrSealed)
	}
	if err := decode(sealed[1:], &s); err != nil || s.Form != transitSealedForm || !bytes.Equal(encode(s), sealed[1:]) {
		return s, 0, fmt.Errorf("%w: unknown form", ErrSealed)
	}
	if version, err = vault.CiphertextVersion(s.Ciphertext); err != nil {
		return s, 0, fmt.Errorf("%w: unknown form", ErrSealed)
	}
	return s, version, nil
}

// refused tells apart what Vault says: it has another key, or the bytes are not
// what it sealed, or it is out of reach or lets nobody in.
func (k *transitKEK) refused(err error) error {
	err = transitError(err)
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	var said *vault.Error
	if !errors.As(err, &said) {
		return fmt.Errorf("keys: Vault's %s/%s: %w", k.mount, k.key, err)
	}
	says := func(text string) bool {
		return slices.ContainsFunc(said.Messages, func(m string) bool { return strings.Contains(m, text) })
	}
	switch {
	case says("disallowed by policy (too old)"):
		return fmt.Errorf("%w: Vault's %s/%s doesn't open its old versions: lower its min_decryption_version", ErrKEK, k.mount, k.key)
	case says("version is too new"):
		return fmt.Errorf("%w: Vault's %s/%s has no such version: its storage was rolled back, or it is another key of that name", ErrKEK, k.mount, k.key)
	case says("key not found"), errors.Is(err, vault.ErrNotFound), says("not supported for key type"), says("non-AEAD"):
		return fmt.Errorf("%w: Vault has no key %s/%s of type aes256-gcm96 (vault write -f %s/keys/%s)", ErrKEK, k.mount, k.key, k.mount, k.key)
	case errors.Is(err, vault.ErrRefused):
		return ErrSealed
	}
	return fmt.Errorf("keys: Vault's %s/%s: %w", k.mount, k.key, err)
}
