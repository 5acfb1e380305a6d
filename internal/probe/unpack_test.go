package probe

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"
)

func gz(t testing.TB, data string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func zipped(t testing.TB, files ...string) string {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for i, data := range files {
		f, err := w.Create(fmt.Sprintf("file%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestUnpack(t *testing.T) {
	const limit = 1000
	long := strings.Repeat("a", limit)
	for name, k := range map[string]struct {
		body, want string
		whole      bool
	}{
		"nothing":                   {"", "", true},
		"what is not packed":        {"plain", "plain", true},
		"gzip":                      {gz(t, "found"), "found", true},
		"two parts, one file":       {gz(t, "fou") + gz(t, "nd"), "found", true},
		"twice":                     {gz(t, gz(t, "found")), "found", true},
		"three times":               {gz(t, gz(t, gz(t, "found"))), gz(t, "found"), true},
		"an archive":                {zipped(t, "one", "two"), "one\ntwo\nfile0\nfile1\n", true},
		"an archive in gzip":        {gz(t, zipped(t, "one")), "one\nfile0\n", true},
		"at the bound":              {gz(t, long), long, true},
		"beyond the bound":          {gz(t, long+"b"), long, false},
		"far beyond the bound":      {gz(t, strings.Repeat("a", 50_000_000)), long, false},
		"an archive beyond it":      {zipped(t, long[:600], long[:600]), long[:600] + "\n" + long[:399], false},
		"an archive of many":        {zipped(t, make([]string, maxEntries+1)...), "", false},
		"cut off":                   {gz(t, "found"+long[:100])[:30], "", false},
		"a head and nothing":        {"\x1f\x8b\x08", "\x1f\x8b\x08", false},
		"an archive that is none":   {"PK\x03\x04nothing", "PK\x03\x04nothing", false},
		"gzip whose sum is another": {gz(t, "found")[:len(gz(t, "found"))-8] + "12345678", "found", false},
	} {
		plain, whole := unpack([]byte(k.body), limit)
		if whole != k.whole || len(plain) > limit+len(k.body) || k.want != "" && string(plain) != k.want {
			t.Errorf("%s: %.60q, %v", name, plain, whole)
		}
	}
}

// FuzzUnpack: no more comes out than may.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte(gz(f, gz(f, "found"))))
	f.Add([]byte(zipped(f, "one", "two")))
	f.Fuzz(func(t *testing.T, data []byte) {
		if plain, _ := unpack(data, 1000); len(plain) > 1000+len(data) {
			t.Fatalf("%d bytes of %d", len(plain), len(data))
		}
	})
}

// endless counts what is read of it.
type endless int

func (n *endless) Read(p []byte) (int, error) {
	if *n += endless(len(p)); *n > 1<<20 {
		return 0, io.ErrUnexpectedEOF
	}
	return len(p), nil
}

// What is small and becomes huge is not unpacked to its end.
func TestNoMoreIsReadThanMayComeOut(t *testing.T) {
	var n endless
	if plain, whole := upTo(&n, 1000); len(plain) != 1000 || whole || n > 4096 {
		t.Errorf("%d bytes, %v, of %d", len(plain), whole, n)
	}
}
