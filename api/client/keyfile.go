package client

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/credential"
)

// maxKeyFile bounds a private key's file, in bytes.
const maxKeyFile = 64 << 10

// LoadKey reads a private key from a file: PEM (PKCS #8, SEC 1 or PKCS #1) or
// one private JWK, whose `kid` and `alg` are taken over. It refuses a file that
// the group or others can read or write.
func LoadKey(path string, account credential.AccountID) (PrivateKeyJWT, error) {
	f, err := os.Open(path) //nolint:gosec // the path is the caller's own choice
	if err != nil {
		return PrivateKeyJWT{}, fmt.Errorf("client: key file: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	info, err := f.Stat()
	if err != nil {
		return PrivateKeyJWT{}, fmt.Errorf("client: key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return PrivateKeyJWT{}, fmt.Errorf("client: key file %s: not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return PrivateKeyJWT{}, fmt.Errorf("client: key file %s has mode %04o: others could read the key; run chmod 600 on it", path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return PrivateKeyJWT{}, fmt.Errorf("client: key file: %w", err)
	}
	key, err := ParseKey(data, account)
	if err != nil {
		return PrivateKeyJWT{}, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, nil
}

// ParseKey reads a private key as LoadKey does, from memory. Its errors never
// show the input.
func ParseKey(data []byte, account credential.AccountID) (PrivateKeyJWT, error) {
	if len(data) > maxKeyFile {
		return PrivateKeyJWT{}, fmt.Errorf("client: over %d bytes", maxKeyFile)
	}
	a := PrivateKeyJWT{Account: account}
	var err error
	if block, _ := pem.Decode(data); block != nil {
		a.Key, err = parsePEM(block)
	} else {
		err = a.parseJWK(data)
	}
	if err != nil {
		return PrivateKeyJWT{}, err
	}
	s, err := newAssertionSigner(a)
	if err != nil {
		return PrivateKeyJWT{}, err
	}
	a.KeyID, a.Algorithm = s.kid, s.alg
	return a, nil
}

func parsePEM(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("client: the PEM key is encrypted; store it decrypted with mode 0600")
	default:
		return nil, errors.New("client: the PEM block is not a private key")
	}
	if err != nil {
		return nil, errors.New("client: the PEM private key does not parse")
	}
	return asSigner(key)
}

// parseJWK reads one private JWK (RFC 7517); go-jose checks that its parts fit.
func (a *PrivateKeyJWT) parseJWK(data []byte) error {
	if _, err := credential.ParseObject(data); err != nil {
		return errors.New("client: neither PEM nor one JWK")
	}
	var k jose.JSONWebKey
	if err := json.Unmarshal(data, &k); err != nil || !k.Valid() {
		return errors.New("client: not a usable JWK")
	}
	if k.IsPublic() {
		return errors.New("client: this JWK is a public key; the private one is needed")
	}
	if k.Use != "" && k.Use != "sig" {
		return errors.New("client: the JWK is not for signatures")
	}
	if k.Algorithm != "" {
		alg, err := credential.ParseAlgorithm(k.Algorithm)
		if err != nil {
			return fmt.Errorf("client: JWK: %w", err)
		}
		a.Algorithm = alg
	}
	a.KeyID = k.KeyID
	var err error
	a.Key, err = asSigner(k.Key)
	return err
}

func asSigner(key any) (crypto.Signer, error) {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	case *rsa.PrivateKey:
		return k, nil
	}
	return nil, errors.New("client: the key can't sign: EC, Ed25519 or RSA is needed")
}
