package keys

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func writeFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

var goodLine = keyFileLead + strings.Repeat("A", 43) + "\n"

func TestAKeyFileIsTakenOnlyAsItWasGenerated(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string // part of the error; empty: taken
	}{
		"mode 0600":              {goodLine, 0o600, ""},
		"mode 0400":              {goodLine, 0o400, ""},
		"comments and no end":    {"# a\n\n" + strings.TrimSpace(goodLine), 0o600, ""},
		"readable by the group":  {goodLine, 0o640, "mode 0640"},
		"readable by all":        {goodLine, 0o604, "mode 0604"},
		"writable by the group":  {goodLine, 0o620, "mode 0620"},
		"executable":             {goodLine, 0o700, "mode 0700"},
		"empty":                  {"", 0o600, "holds no key"},
		"comments only":          {"# nothing\n", 0o600, "holds no key"},
		"two keys":               {goodLine + goodLine, 0o600, "exactly one line"},
		"another kind of file":   {"-----BEGIN PRIVATE KEY-----\n", 0o600, "exactly one line"},
		"a short key":            {keyFileLead + strings.Repeat("A", 42) + "\n", 0o600, "32 bytes"},
		"a long key":             {keyFileLead + strings.Repeat("A", 44) + "\n", 0o600, "32 bytes"},
		"set trailing bits":      {keyFileLead + strings.Repeat("A", 42) + "B\n", 0o600, "32 bytes"},
		"not base64url":          {keyFileLead + strings.Repeat("+", 43) + "\n", 0o600, "32 bytes"},
		"over the size of a key": {goodLine + strings.Repeat("#", maxKeyFile), 0o600, "at most 1024"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadKeyFile(writeFile(t, c.text, c.mode))
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (!errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			case err != nil && strings.Contains(err.Error(), "AAAA"):
				t.Error("the error shows the key")
			}
		})
	}
	if _, err := LoadKeyFile(t.TempDir()); !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := LoadKeyFile("/nonexistent"); !errors.Is(err, ErrKeyFile) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// owned is the information of a file that belongs to somebody.
type owned struct {
	os.FileInfo
	uid uint32
}

func (o owned) Sys() any { return &syscall.Stat_t{Uid: o.uid} }

func TestAKeyFileOfSomebodyElseIsRefused(t *testing.T) {
	info, err := os.Stat(writeFile(t, goodLine, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if err := checkKeyFile(owned{info, 1001}, 1000); err == nil || !strings.Contains(err.Error(), "user 1001") {
		t.Errorf("%v", err)
	}
	for _, uid := range []uint32{1000, 0} {
		if err := checkKeyFile(owned{info, uid}, 1000); err != nil {
			t.Errorf("owner %d: %v", uid, err)
		}
	}
}

func TestGeneratingAKeyFileNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if err := GenerateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := GenerateKeyFile(path); !errors.Is(err, ErrKeyFile) || !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Error("the file changed")
	}
	other := filepath.Join(t.TempDir(), "kek")
	if err := GenerateKeyFile(other); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(other); bytes.Equal(before, again) {
		t.Error("two keys are equal")
	}
	if err := GenerateKeyFile("/nonexistent/kek"); !errors.Is(err, ErrKeyFile) {
		t.Errorf("%v", err)
	}
	if err := syncFolder("/nonexistent"); err == nil {
		t.Error("a folder that isn't there was synced")
	}
}

func TestWhatIsSealedOpensOnlyUnderItsKeyAndPurpose(t *testing.T) {
	ctx := t.Context()
	one, two := newKeyFile(t), newKeyFile(t)
	sealed, err := one.Seal(ctx, []byte("private"), []byte("for a"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("private")) {
		t.Error("not sealed")
	}
	if again, _ := one.Seal(ctx, []byte("private"), []byte("for a")); bytes.Equal(sealed, again) {
		t.Error("sealing twice gives the same bytes")
	}
	if plain, err := one.Open(ctx, sealed, []byte("for a")); err != nil || string(plain) != "private" {
		t.Errorf("%q %v", plain, err)
	}
	if _, err := one.Open(ctx, sealed, []byte("for b")); !errors.Is(err, ErrSealed) {
		t.Errorf("another purpose: %v", err)
	}
	if _, err := two.Open(ctx, sealed, []byte("for a")); !errors.Is(err, ErrKEK) {
		t.Errorf("another key: %v", err)
	}
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 1
		if _, err := one.Open(ctx, altered, []byte("for a")); !errors.Is(err, ErrSealed) && !errors.Is(err, ErrKEK) {
			t.Fatalf("byte %d altered: %v", i, err)
		}
		if _, err := one.Open(ctx, sealed[:i], []byte("for a")); !errors.Is(err, ErrSealed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	both := KEKs(two, one)
	if plain, err := both.Open(ctx, sealed, []byte("for a")); err != nil || string(plain) != "private" {
		t.Errorf("a former key: %q %v", plain, err)
	}
	if _, err := both.Open(ctx, sealed, []byte("for b")); !errors.Is(err, ErrSealed) {
		t.Errorf("a former key, another purpose: %v", err)
	}
	if fresh, err := both.Seal(ctx, []byte("x"), nil); err != nil {
		t.Error(err)
	} else if _, err := two.Open(ctx, fresh, nil); err != nil {
		t.Errorf("not sealed by the primary key: %v", err)
	}
}

func FuzzParseKeyFile(f *testing.F) {
	f.Add([]byte(goodLine))
	f.Add([]byte("# c\r\n" + goodLine + "\n"))
	f.Add([]byte(keyFileLead))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := parseKeyFile(data)
		if (err == nil) != (len(key) == kekSize) {
			t.Errorf("%d bytes, %v", len(key), err)
		}
	})
}

func FuzzOpenSealed(f *testing.F) {
	key := make([]byte, kekSize)
	kek, err := newKEK(key)
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := kek.Seal(f.Context(), []byte("x"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte{sealedVersion})
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := kek.Open(t.Context(), data, nil)
		if err == nil && string(plain) != "x" {
			t.Error("forged")
		}
	})
}

func TestBackoffGrowsAndIsForgotten(t *testing.T) {
	var b backoff
	now := day0
	problem := errors.New("down")
	want := []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second}
	for _, wait := range want {
		if b.allows(now) != nil {
			t.Fatal("not allowed")
		}
		b.after(now, problem)
		if !errors.Is(b.allows(now.Add(wait-1)), problem) {
			t.Errorf("allowed before %s", wait)
		}
		now = now.Add(wait)
	}
	for range 10 {
		b.after(now, problem)
	}
	if b.allows(now.Add(longestBackoff-1)) == nil || b.allows(now.Add(longestBackoff)) != nil {
		t.Error("not bounded")
	}
	if b.allows(now.Add(-24*time.Hour)) != nil {
		t.Error("a clock that was set back makes it wait for a day")
	}
	b.after(now, nil)
	if b.allows(now) != nil {
		t.Error("success isn't forgotten")
	}
}
