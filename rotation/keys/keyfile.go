package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/xaesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
)

// ErrKeyFile says that a key file can't be used as it is.
var ErrKeyFile = errors.New("keys: unusable key file")

const (
	keyFileLead    = "tenantbroker-key-v1 "
	keyFileComment = "# Key-encryption key. Who has this file and the broker's store can sign tokens.\n"
	kekSize        = 32
	maxKeyFile     = 1024
	sealedVersion  = 1
	kekIDSize      = 8
)

// keyFile is a KEK that was read from a file: XAES-256-GCM with random nonces
// of 24 bytes, of which two alike are as good as impossible for any number of
// keys. It keeps the key in closures, where nothing that prints or walks a value
// finds it; it is in the memory of the process all the same. Sealed bytes begin
// with a version and the id of the key, so that a wrong key and altered bytes
// are told apart.
type keyFile struct {
	_    [0]func()
	head [1 + kekIDSize]byte
	seal func(plaintext, aad []byte) ([]byte, error)
	open func(ciphertext, aad []byte) ([]byte, error)
}

// LoadKeyFile reads a key-encryption key from a file that GenerateKeyFile
// wrote. The file must be a regular one, mode 0600 or 0400, owned by the user
// who runs this process or by root.
//
// Every error wraps ErrKeyFile.
func LoadKeyFile(path string) (KEK, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat() // of what was opened, not of what the name means by then
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	if err := checkKeyFile(info, os.Geteuid()); err != nil {
		return nil, fmt.Errorf("%w: %s %w", ErrKeyFile, path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	defer clear(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	key, err := parseKeyFile(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %w", ErrKeyFile, path, err)
	}
	defer clear(key)
	return newKEK(key)
}

func checkKeyFile(info os.FileInfo, user int) error {
	mode := info.Mode()
	switch {
	case !mode.IsRegular():
		return errors.New("is not a regular file")
	case mode.Perm() != 0o600 && mode.Perm() != 0o400:
		return fmt.Errorf("has mode %04o: make it 0600 or 0400, so that nobody else can read it", mode.Perm())
	case info.Size() > maxKeyFile:
		return fmt.Errorf("has %d bytes, a key file at most %d", info.Size(), maxKeyFile)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != user && st.Uid != 0 {
		return fmt.Errorf("is owned by user %d, not by user %d, who runs this, or root", st.Uid, user)
	}
	return nil
}

// parseKeyFile reads comment lines and exactly one line with the key.
func parseKeyFile(data []byte) ([]byte, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("has more than %d bytes", maxKeyFile)
	}
	var key []byte
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		text, ok := bytes.CutPrefix(line, []byte(keyFileLead))
		if !ok || key != nil {
			return nil, errors.New("does not hold exactly one line " + keyFileLead + "KEY")
		}
		key = make([]byte, base64.RawURLEncoding.DecodedLen(len(text)))
		if n, err := base64.RawURLEncoding.Strict().Decode(key, text); err != nil || n != kekSize {
			return nil, fmt.Errorf("does not hold a key of %d bytes in base64url", kekSize)
		}
	}
	if key == nil {
		return nil, errors.New("holds no key")
	}
	return key, nil
}

// GenerateKeyFile writes a new key-encryption key to path, mode 0600, and
// returns when it is durable. It never overwrites.
//
// Every error wraps ErrKeyFile, and os.ErrExist where the file exists.
func GenerateKeyFile(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path) // half a key file is worse than none
			err = fmt.Errorf("%w: %w", ErrKeyFile, err)
		}
	}()
	key := make([]byte, kekSize)
	defer clear(key)
	_, _ = rand.Read(key) // never fails (crypto/rand, Go 1.24)
	text := base64.RawURLEncoding.AppendEncode([]byte(keyFileComment+keyFileLead), key)
	defer clear(text)
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes a new name in a folder durable.
func syncFolder(path string) error {
	d, err := os.Open(path) //nolint:gosec // the folder of a file that the operator names
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newKEK(key []byte) (KEK, error) {
	primitive, err := func() (interface {
		Encrypt(plaintext, associatedData []byte) ([]byte, error)
		Decrypt(ciphertext, associatedData []byte) ([]byte, error)
	}, error) {
		parameters, err := xaesgcm.NewParameters(xaesgcm.VariantNoPrefix, 12)
		if err != nil {
			return nil, err
		}
		k, err := xaesgcm.NewKey(secretdata.NewBytesFromData(key, insecuresecretdataaccess.Token{}), 0, parameters)
		if err != nil {
			return nil, err
		}
		set := keyset.NewManager()
		id, err := set.AddKey(k)
		if err != nil {
			return nil, err
		}
		if err := set.SetPrimary(id); err != nil {
			return nil, err
		}
		handle, err := set.Handle()
		if err != nil {
			return nil, err
		}
		return aead.New(handle)
	}()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	named := append([]byte("tenantbroker key-encryption key id\x00"), key...)
	defer clear(named)
	id := sha256.Sum256(named)
	f := &keyFile{seal: primitive.Encrypt, open: primitive.Decrypt}
	f.head[0] = sealedVersion
	copy(f.head[1:], id[:])
	return f, nil
}

// Seal implements KEK.
func (f *keyFile) Seal(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	sealed, err := f.seal(plaintext, aad)
	if err != nil {
		return nil, errors.New("keys: sealing failed")
	}
	return append(f.head[:len(f.head):len(f.head)], sealed...), nil
}

// Open implements KEK.
func (f *keyFile) Open(_ context.Context, sealed, aad []byte) ([]byte, error) {
	if len(sealed) > 0 && sealed[0] == transitSealedVersion {
		return nil, fmt.Errorf("%w: a key in Vault, not a key file", ErrKEK)
	}
	if len(sealed) < len(f.head) || sealed[0] != sealedVersion {
		return nil, fmt.Errorf("%w: unknown form", ErrSealed)
	}
	if !bytes.Equal(sealed[:len(f.head)], f.head[:]) {
		return nil, ErrKEK
	}
	plaintext, err := f.open(sealed[len(f.head):], aad)
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}
