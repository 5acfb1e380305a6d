package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store"
)

func newTestKEK(t testing.TB) keys.KEK {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek.key")
	if err := keys.GenerateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	kek, err := keys.LoadKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

// content is a store whose snapshot is these bytes.
type content struct {
	store.Store
	snapshot []byte
}

func (c content) Snapshot(_ context.Context, w io.Writer) error {
	_, err := io.Copy(w, bytes.NewReader(c.snapshot))
	return err
}

func testIssuer(t testing.TB) credential.IssuerURL {
	t.Helper()
	issuer, err := credential.ParseIssuerURL("https://broker.example.com")
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

var takenAt = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func sealedBackup(t testing.TB, kek keys.KEK, snapshot []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := writeBackup(t.Context(), content{snapshot: snapshot}, kek, testIssuer(t), takenAt, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// accepts returns the statement and the snapshot of a backup that restores.
func accepts(t testing.TB, kek keys.KEK, backup []byte) (statement, []byte, error) {
	t.Helper()
	var out bytes.Buffer
	s, err := copyVerified(t.Context(), kek, testIssuer(t), &out, bytes.NewReader(backup), int64(len(backup)))
	return s, out.Bytes(), err
}

// randomBytes are the same in each run.
func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestASealedBackupGivesItsSnapshotBack(t *testing.T) {
	kek := newTestKEK(t)
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 4096, 300_000} { // beyond one piece of the copy
		snapshot := randomBytes(r, size)
		s, got, err := accepts(t, kek, sealedBackup(t, kek, snapshot))
		if err != nil || !bytes.Equal(got, snapshot) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if !s.TakenAt.Equal(takenAt) || s.Size != int64(size) {
			t.Errorf("%+v", s)
		}
	}
}

// Every position of the trailer, and random ones before it: whichever byte is
// altered, whichever is missing or added, the backup is refused.
func TestNoByteOfABackupCanBeAltered(t *testing.T) {
	kek := newTestKEK(t)
	r := rand.New(rand.NewPCG(3, 4))
	snapshot := randomBytes(r, 40_000)
	good := sealedBackup(t, kek, snapshot)
	positions := []int{0, 1, len(snapshot) - 1}
	for at := len(snapshot); at < len(good); at++ {
		positions = append(positions, at)
	}
	for range 200 {
		positions = append(positions, r.IntN(len(snapshot)))
	}
	refused := func(what string, at int, altered []byte) {
		t.Helper()
		if _, _, err := accepts(t, kek, altered); !errors.Is(err, errAltered) && !errors.Is(err, errNoSeal) && !errors.Is(err, keys.ErrKEK) {
			t.Errorf("%s at %d of %d: %v", what, at, len(good), err)
		}
	}
	for _, at := range positions {
		altered := slices.Clone(good)
		altered[at] ^= byte(1 + r.IntN(255))
		refused("altered", at, altered)
		refused("missing", at, slices.Delete(slices.Clone(good), at, at+1))
		refused("added", at, slices.Insert(slices.Clone(good), at, byte(r.Uint32())))
		refused("cut off", at, good[:at])
	}
	for _, n := range []int{1, 25, 4096} {
		refused("appended", len(good), append(slices.Clone(good), make([]byte, n)...))
	}
	refused("twice", len(good), slices.Concat(good, good))
	refused("another's end", len(good), slices.Concat(good, good[len(snapshot):]))
}

func TestASealIsOfOneBackupKeyAndPurpose(t *testing.T) {
	kek := newTestKEK(t)
	snapshot := bytes.Repeat([]byte("page"), 4096)
	other := bytes.Repeat([]byte("Page"), 4096)
	good := sealedBackup(t, kek, snapshot)
	trailer := func(s statement) []byte {
		sealed, err := s.seal(t.Context(), kek)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	enclosed := func(plain, purpose string) []byte {
		sealed, err := kek.Seal(t.Context(), []byte(plain), []byte(purpose))
		if err != nil {
			t.Fatal(err)
		}
		return slices.Concat(snapshot, sealed, binary.BigEndian.AppendUint32(nil, uint32(len(sealed))), []byte(backupEnd))
	}
	sealed, _, err := findSeal(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := kek.Open(t.Context(), sealed, []byte(backupPurpose))
	if err != nil {
		t.Fatal(err)
	}
	right, err := openSeal(t.Context(), kek, sealed)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(*statement)) []byte {
		s := right
		change(&s)
		return slices.Concat(snapshot, trailer(s))
	}
	if _, _, err := accepts(t, kek, enclosed(string(plain), backupPurpose)); err != nil {
		t.Fatalf("control: %v", err)
	}
	issuer, err := credential.ParseIssuerURL("https://other.example.com")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		backup []byte
		want   string
	}{
		"another backup's trailer":          {slices.Concat(other, good[len(snapshot):]), errAltered.Error()},
		"another key-encryption key":        {sealedBackup(t, newTestKEK(t), snapshot), keys.ErrKEK.Error()},
		"a seal for another purpose":        {enclosed(string(plain), "tenantbroker signing key 1"), errAltered.Error()},
		"a statement with a word more":      {enclosed(strings.Replace(string(plain), "{", `{"more":1,`, 1), backupPurpose), "unknown field"},
		"a statement that is none":          {enclosed("", backupPurpose), "the backup's statement"},
		"another issuer":                    {changed(func(s *statement) { s.Issuer = issuer }), ErrOtherBroker.Error()},
		"another version":                   {changed(func(s *statement) { s.Version = 2 }), "version 2"},
		"another size":                      {changed(func(s *statement) { s.Size++ }), errAltered.Error()},
		"no digest":                         {changed(func(s *statement) { s.SHA256 = nil }), errAltered.Error()},
		"half a digest":                     {changed(func(s *statement) { s.SHA256 = s.SHA256[:16] }), errAltered.Error()},
		"a plain snapshot":                  {snapshot, "a plain copy of a store"},
		"a plain snapshot and a bare end":   {slices.Concat(snapshot, []byte(backupEnd)), errNoSeal.Error()},
		"a seal of no length":               {slices.Concat(snapshot, make([]byte, lengthSize), []byte(backupEnd)), errNoSeal.Error()},
		"a seal longer than the file":       {slices.Concat([]byte{0, 0, 0, 1}, []byte(backupEnd)), errNoSeal.Error()},
		"a seal longer than seals ever are": {slices.Concat(snapshot, snapshot, []byte{0, 0, 0x70, 0}, []byte(backupEnd)), errNoSeal.Error()},
		"nothing":                           {nil, errNoSeal.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := accepts(t, kek, c.backup); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// noKEK is a key-encryption key that is out of reach.
type noKEK struct{ sealed int }

var errOutOfReach = errors.New("out of reach")

func (k noKEK) Seal(context.Context, []byte, []byte) ([]byte, error) {
	if k.sealed > 0 {
		return make([]byte, k.sealed), nil
	}
	return nil, errOutOfReach
}

func (noKEK) Open(context.Context, []byte, []byte) ([]byte, error) { return nil, errOutOfReach }

func TestWithoutTheKeyEncryptionKeyThereIsNoBackup(t *testing.T) {
	for _, kek := range []keys.KEK{noKEK{}, noKEK{sealed: maxSealed + 1}} {
		if err := writeBackup(t.Context(), content{}, kek, testIssuer(t), takenAt, io.Discard); err == nil {
			t.Errorf("%+v sealed a backup", kek)
		}
	}
	if _, _, err := accepts(t, noKEK{}, sealedBackup(t, newTestKEK(t), nil)); !errors.Is(err, errOutOfReach) {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	kek := newTestKEK(t)
	good := sealedBackup(t, kek, []byte("snapshot"))
	if _, err := copyVerified(ended, kek, testIssuer(t), io.Discard, bytes.NewReader(good), int64(len(good))); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func FuzzBackupSeal(f *testing.F) {
	kek := newTestKEK(f)
	good := sealedBackup(f, kek, []byte("snapshot"))
	f.Add(good)
	f.Add(good[8:])
	f.Add(slices.Concat(good, good))
	f.Add([]byte(backupEnd))
	f.Add(slices.Concat([]byte{0, 0, 0, 0}, []byte(backupEnd)))
	f.Add(slices.Concat([]byte{0xff, 0xff, 0xff, 0xff}, []byte(backupEnd)))
	f.Fuzz(func(t *testing.T, file []byte) {
		sealed, size, err := findSeal(bytes.NewReader(file), int64(len(file)))
		if err == nil {
			if len(sealed) == 0 || len(sealed) > maxSealed {
				t.Errorf("a seal of %d bytes", len(sealed))
			}
			length := binary.BigEndian.AppendUint32(nil, uint32(len(sealed)))
			if !bytes.Equal(file, slices.Concat(file[:size], sealed, length, []byte(backupEnd))) {
				t.Error("snapshot, seal, length and end are not the whole file")
			}
		}
		if _, _, err := accepts(t, kek, file); err == nil && !bytes.Equal(file, good) {
			t.Error("a backup that nobody made")
		}
	})
}
