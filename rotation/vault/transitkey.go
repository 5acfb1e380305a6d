package vault

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// TransitKey is what Transit tells of a key.
type TransitKey struct {
	Name                 string
	Type                 string // "ecdsa-p256", "ed25519", "rsa-2048", "aes256-gcm96", …
	Exportable           bool
	AllowPlaintextBackup bool
	Derived              bool
	DeletionAllowed      bool
	Imported             bool // its private key has been outside
	AutoRotate           time.Duration
	LatestVersion        int
	MinAvailableVersion  int
	MinDecryptionVersion int
	MinEncryptionVersion int
	Versions             map[int]TransitVersion // from MinDecryptionVersion on
}

// TransitVersion is one version of a key.
type TransitVersion struct {
	Public    crypto.PublicKey // nil for a symmetric key
	CreatedAt time.Time
}

// Key reads a key.
func (t *Transit) Key(ctx context.Context, name string) (TransitKey, error) {
	one := &call{op: opTransitRead, method: http.MethodGet, path: t.path("keys", name)}
	out, err := t.client.do(ctx, one)
	if err != nil {
		return TransitKey{}, err
	}
	var data struct {
		Name      string                     `json:"name"`
		Type      string                     `json:"type"`
		Export    bool                       `json:"exportable"`
		Backup    bool                       `json:"allow_plaintext_backup"`
		Derived   bool                       `json:"derived"`
		Deletion  bool                       `json:"deletion_allowed"`
		Imported  bool                       `json:"imported_key"`
		Auto      int64                      `json:"auto_rotate_period"` // seconds
		Latest    int                        `json:"latest_version"`
		Available int                        `json:"min_available_version"`
		MinOpen   int                        `json:"min_decryption_version"`
		MinSeal   int                        `json:"min_encryption_version"`
		Keys      map[string]json.RawMessage `json:"keys"`
	}
	if err := out.into(one, &data); err != nil {
		return TransitKey{}, err
	}
	key := TransitKey{
		Name: data.Name, Type: data.Type, Exportable: data.Export, AllowPlaintextBackup: data.Backup, Derived: data.Derived,
		DeletionAllowed: data.Deletion, Imported: data.Imported, AutoRotate: time.Duration(data.Auto) * time.Second,
		LatestVersion: data.Latest, MinAvailableVersion: data.Available,
		MinDecryptionVersion: data.MinOpen, MinEncryptionVersion: data.MinSeal,
		Versions: make(map[int]TransitVersion, len(data.Keys)),
	}
	for number, raw := range data.Keys {
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return TransitKey{}, unexpected(one, "a version that is not a number")
		}
		if key.Versions[n], err = parseVersion(raw); err != nil {
			return TransitKey{}, unexpected(one, fmt.Sprintf("version %d: %v", n, err))
		}
	}
	return key, nil
}

// parseVersion reads a version: a time for a symmetric key, an object else.
func parseVersion(raw json.RawMessage) (TransitVersion, error) {
	var seconds int64
	if json.Unmarshal(raw, &seconds) == nil {
		return TransitVersion{CreatedAt: time.Unix(seconds, 0).UTC()}, nil
	}
	var version struct {
		Public  string    `json:"public_key"`
		Created time.Time `json:"creation_time"`
	}
	if err := json.Unmarshal(raw, &version); err != nil {
		return TransitVersion{}, fmt.Errorf("neither a time nor a public key")
	}
	out := TransitVersion{CreatedAt: version.Created}
	if version.Public == "" {
		return out, nil // derived: it has one for each context
	}
	public, err := parsePublic(version.Public)
	out.Public = public
	return out, err
}

// parsePublic reads PEM (ECDSA, RSA) or the 32 bytes of an Ed25519 key.
func parsePublic(text string) (crypto.PublicKey, error) {
	if block, _ := pem.Decode([]byte(text)); block != nil {
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a public key that can't be read")
		}
		return public, nil
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("a public key of unknown form")
	}
	return ed25519.PublicKey(raw), nil
}
