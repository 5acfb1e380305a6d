package keys

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// TransitKeyError says why a Transit key is not one to sign with, and what a
// person does about it. It matches ErrTransitKey.
type TransitKeyError struct {
	Mount, Key string
	Problem    string
	Do         string
}

// Error implements error.
func (e *TransitKeyError) Error() string {
	return fmt.Sprintf("%v: %s/%s %s: %s", ErrTransitKey, e.Mount, e.Key, e.Problem, e.Do)
}

// Is reports whether target is ErrTransitKey.
func (e *TransitKeyError) Is(target error) bool { return target == ErrTransitKey }

// checkTransitKey holds a Transit key to what a signing key must be (I7).
func checkTransitKey(mount string, info vault.TransitKey, alg credential.Algorithm) error {
	const anew = "choose another signing.vault_key_prefix, so that keys are made anew"
	for _, c := range []struct {
		wrong       bool
		problem, do string
	}{
		{info.Type != transitTypes[alg], fmt.Sprintf("is of type %s, not %s", info.Type, transitTypes[alg]), anew},
		{info.Exportable, "is exportable, so its private keys may be outside Vault, and this can't be undone", anew},
		{info.AllowPlaintextBackup, "allows plaintext backups, so its private keys may be outside Vault, and this can't be undone", anew},
		{info.Imported, "was imported, so its private key has been outside Vault", anew},
		{info.Derived, "is derived: it has no public key of its own", anew},
		{
			info.DeletionAllowed, "may be deleted",
			fmt.Sprintf("vault write %s/keys/%s/config deletion_allowed=false", mount, info.Name),
		},
	} {
		if c.wrong {
			return &TransitKeyError{mount, info.Name, c.problem, c.do}
		}
	}
	return nil
}

// rolledBack is the error where Vault has fewer versions than were published.
// Making the missing ones anew would put other keys in their place.
func rolledBack(mount, name string, alg credential.Algorithm, latest, mark int) error {
	missing, first := mark-latest, ""
	if latest == 0 { // Vault rotates no key that is not there; a new one has version 1
		missing, first = mark-1, fmt.Sprintf("make the key (vault write %s/keys/%s type=%s) and ", mount, name, transitTypes[alg])
	}
	return fmt.Errorf("%w: %s/%s has %d versions, and version %d was there before: Vault's storage was rolled back. "+
		"Bring it back, or %srotate the key in Vault %d times (vault write -f %s/keys/%s/rotate), or choose another signing.vault_key_prefix",
		ErrLost, mount, name, latest, mark, first, missing, mount, name)
}

const (
	transitForm    = 1
	maxTransitBlob = 1024
)

// transitBlob is what the row of a key holds in the place of a private key.
type transitBlob struct {
	Form    int    `json:"form"`
	Mount   string `json:"mount"`
	Key     string `json:"key"`
	Version int    `json:"version"`
}

// parseTransitBlob takes exactly what encode gives.
func parseTransitBlob(data []byte) (b transitBlob, err error) {
	if len(data) > maxTransitBlob {
		return b, fmt.Errorf("%w: %d bytes for a key in Vault", ErrCorrupt, len(data))
	}
	if err := decode(data, &b); err != nil {
		return b, err
	}
	switch {
	case b.Form != transitForm, b.Version < 1, !bytes.Equal(encode(b), data):
		return b, fmt.Errorf("%w: a key in Vault", ErrCorrupt)
	case CheckTransitMount(b.Mount) != nil, CheckTransitName(b.Key) != nil:
		return b, fmt.Errorf("%w: the name of a key in Vault", ErrCorrupt)
	}
	return b, nil
}

// check looks for the version, and holds it against the published key.
func (b transitBlob) check(info vault.TransitKey, public jwks.Key) error {
	version, there := info.Versions[b.Version]
	switch {
	case b.Version > info.LatestVersion:
		return fmt.Errorf("%w: %s/%s has no version %d: Vault's storage was rolled back", ErrLost, b.Mount, b.Key, b.Version)
	case b.Version < max(info.MinDecryptionVersion, info.MinEncryptionVersion):
		return fmt.Errorf("%w: %s/%s doesn't sign with version %d any more: its min_encryption_version is %d, its min_decryption_version %d",
			ErrLost, b.Mount, b.Key, b.Version, info.MinEncryptionVersion, info.MinDecryptionVersion)
	case !there:
		return fmt.Errorf("%w: %s/%s has no version %d", ErrLost, b.Mount, b.Key, b.Version)
	}
	found, err := identified(public.Algorithm(), version.Public)
	if err != nil || !found.Equal(public) {
		return fmt.Errorf("%w: version %d of %s/%s is another key than the one that was published", ErrLost, b.Version, b.Mount, b.Key)
	}
	return nil
}

const (
	maxTransitMount = 128
	maxTransitName  = 64
)

// CheckTransitMount returns nil for the path of a mount, such as "transit".
func CheckTransitMount(mount string) error {
	for part := range strings.SplitSeq(mount, "/") {
		if len(mount) > maxTransitMount || CheckTransitName(part) != nil {
			return fmt.Errorf("keys: a mount is 1 to %d letters, digits and . _ - between slashes", maxTransitMount)
		}
	}
	return nil
}

// CheckTransitName returns nil for the name of a Transit key, or its beginning.
func CheckTransitName(name string) error {
	if name == "" || len(name) > maxTransitName || name[0] == '.' || name[0] == '-' {
		return errTransitName
	}
	for i := range len(name) {
		if !strings.Contains(transitNameChars, name[i:i+1]) {
			return errTransitName
		}
	}
	return nil
}

const transitNameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

var errTransitName = errors.New("keys: the name of a Transit key is 1 to 64 letters, digits and, after the first, . _ -")
