package bolt_test

import (
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

func TestSuite(t *testing.T) {
	var paths sync.Map // of each store
	make := func(t testing.TB, path string) store.Store {
		t.Helper()
		s := open(t, path)
		paths.Store(s, path)
		return s
	}
	storetest.Run(t, storetest.Maker{
		New: func(t testing.TB) store.Store {
			t.Helper()
			return make(t, filepath.Join(t.TempDir(), "store.db"))
		},
		Reopen: func(t testing.TB, s store.Store) store.Store {
			t.Helper()
			path, _ := paths.Load(s)
			name, ok := path.(string)
			if !ok {
				t.Fatal("reopened a store that was not made here")
			}
			return make(t, name)
		},
		Restore: func(t testing.TB, snapshot io.Reader) store.Store {
			t.Helper()
			path := filepath.Join(t.TempDir(), "restored.db")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(f, snapshot); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			return make(t, path)
		},
	})
}
