package child

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFoldersOfKilledProgramsAreSwept(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	const prefix = "tenantbroker-test-"
	take := func() *Folder {
		f, err := TakeFolder(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.Path(), "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	there := func(f *Folder) bool {
		_, err := os.Stat(f.Path())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return err == nil
	}
	used, left, fresh := take(), take(), take()
	for _, dead := range []*Folder{left, fresh} { // what the end of a program does
		if err := dead.lock.Close(); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-2 * young)
	for _, f := range []*Folder{used, left} {
		if err := os.Chtimes(f.Path(), old, old); err != nil {
			t.Fatal(err)
		}
	}
	last := take()
	if !there(used) || there(left) || !there(fresh) {
		t.Errorf("in use %v, left behind %v, perhaps not locked yet %v", there(used), there(left), there(fresh))
	}
	for _, f := range []*Folder{used, last} {
		if f.Remove(); there(f) {
			t.Error("not removed")
		}
	}
}
