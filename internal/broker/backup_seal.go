package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store"
)

// A backup is a snapshot of the store, as it is on disk, and a trailer:
//
//	statement, sealed | length of that, 4 bytes, big-endian | backupEnd
//
// The statement is sealed under the key-encryption key and holds the size and
// the SHA-256 of the snapshot, so only who has that key can make a file that
// restores. Each byte of the file is under the digest, under the seal, or a
// constant, but for the length: a wrong one leaves a seal that doesn't open.
const (
	backupEnd     = "tenantbroker backup 1\n"
	backupPurpose = "tenantbroker backup 1" // what the seal is bound to
	backupVersion = 1
	lengthSize    = 4
	// maxSealed bounds a sealed statement, of some 400 bytes, however it is encoded.
	maxSealed = 16 << 10
)

var (
	errNoSeal = errors.New("it doesn't end in the seal of a backup of this version: it was cut off or added to, " +
		"or it is a plain copy of a store, of which nobody can tell whether it was altered; " +
		"only a whole file that broker backup wrote can be restored")
	errAltered = errors.New("the backup was altered, or is damaged: its seal is not that of its content")
)

// statement is what is sealed in a backup's trailer.
type statement struct {
	Version int                  `json:"version"`
	Issuer  credential.IssuerURL `json:"issuer"`
	TakenAt time.Time            `json:"taken_at"`
	Size    int64                `json:"size"`
	SHA256  []byte               `json:"sha256"`
}

// writeBackup writes a sealed copy of the store in one pass.
func writeBackup(ctx context.Context, st store.Store, kek keys.KEK, issuer credential.IssuerURL, at time.Time, w io.Writer) error {
	body := &measured{w: w, digest: sha256.New()}
	if err := st.Snapshot(ctx, body); err != nil {
		return err
	}
	trailer, err := statement{backupVersion, issuer, at.UTC(), body.size, body.digest.Sum(nil)}.seal(ctx, kek)
	if err != nil {
		return err
	}
	_, err = w.Write(trailer)
	return err
}

// measured counts and digests what was written.
type measured struct {
	w      io.Writer
	digest hash.Hash
	size   int64
}

func (m *measured) Write(p []byte) (n int, err error) {
	n, err = m.w.Write(p)
	m.size += int64(n)
	_, _ = m.digest.Write(p[:n]) // never fails (package hash)
	return n, err
}

func (s statement) seal(ctx context.Context, kek keys.KEK) (trailer []byte, err error) {
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	sealed, err := kek.Seal(ctx, plain, []byte(backupPurpose))
	if err != nil {
		return nil, fmt.Errorf("seal the backup: %w", err)
	}
	if len(sealed) > maxSealed {
		return nil, fmt.Errorf("seal the backup: %d bytes", len(sealed))
	}
	length := binary.BigEndian.AppendUint32(nil, uint32(len(sealed))) //nolint:gosec // at most maxSealed
	return slices.Concat(sealed, length, []byte(backupEnd)), nil
}

// findSeal returns the sealed statement of a file of size bytes, and how long
// the snapshot before it is. It says nothing about whether either is genuine.
func findSeal(file io.ReaderAt, size int64) (sealed []byte, snapshot int64, err error) {
	var end [lengthSize + len(backupEnd)]byte
	at := size - int64(len(end))
	if at < 0 {
		return nil, 0, errNoSeal
	}
	if _, err := file.ReadAt(end[:], at); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	length := int64(binary.BigEndian.Uint32(end[:]))
	if string(end[lengthSize:]) != backupEnd || length == 0 || length > min(maxSealed, at) {
		return nil, 0, errNoSeal
	}
	sealed = make([]byte, length)
	if _, err := file.ReadAt(sealed, at-length); err != nil {
		return nil, 0, err
	}
	return sealed, at - length, nil
}

// openSeal opens what findSeal found. Its statement is that of a holder of the
// key-encryption key; it is not yet known to be about this snapshot.
func openSeal(ctx context.Context, kek keys.KEK, sealed []byte) (s statement, err error) {
	plain, err := kek.Open(ctx, sealed, []byte(backupPurpose))
	switch {
	case errors.Is(err, keys.ErrKEK):
		return s, fmt.Errorf("%w: a backup from before a broker rekey needs the former key", err)
	case errors.Is(err, keys.ErrSealed):
		return s, fmt.Errorf("%w: %w", errAltered, err)
	case err != nil:
		return s, fmt.Errorf("open the backup's seal: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(plain))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, fmt.Errorf("the backup's statement: %w", err)
	}
	if s.Version != backupVersion {
		return s, fmt.Errorf("the backup is of version %d, not %d", s.Version, backupVersion)
	}
	return s, nil
}

// copyVerified copies the snapshot of a backup of size bytes to w in one pass,
// and returns the statement that proved true of it. After an error nothing of
// what was written may be believed.
func copyVerified(ctx context.Context, kek keys.KEK, issuer credential.IssuerURL, w io.Writer, file io.ReaderAt, size int64) (statement, error) {
	sealed, length, err := findSeal(file, size)
	if err != nil {
		return statement{}, err
	}
	s, err := openSeal(ctx, kek, sealed)
	if err != nil {
		return statement{}, err
	}
	if s.Issuer != issuer {
		return statement{}, fmt.Errorf("%w: %s, not %s", ErrOtherBroker, s.Issuer, issuer)
	}
	body := &measured{w: w, digest: sha256.New()}
	if _, err := io.Copy(body, readerUntil{ctx, io.NewSectionReader(file, 0, length)}); err != nil {
		return statement{}, err
	}
	if s.Size != body.size || subtle.ConstantTimeCompare(s.SHA256, body.digest.Sum(nil)) != 1 {
		return statement{}, errAltered
	}
	return s, nil
}
