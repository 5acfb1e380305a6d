package broker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// halfway is a store whose copy breaks off after the first megabyte.
type halfway struct{ store.Store }

func (halfway) Snapshot(_ context.Context, w io.Writer) error {
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		return err
	}
	return store.ErrUnavailable
}

// unrecorded is a store that can't write.
type unrecorded struct{ store.Store }

func (unrecorded) Update(context.Context, func(store.Tx) error) error { return store.ErrUnavailable }

func TestHalfACopyIsNoBackup(t *testing.T) {
	st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "store.db"), Writer: "w"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	for name, tc := range map[string]struct {
		store store.Store
		works bool
	}{
		"a copy that is whole":               {st, true},
		"a copy that breaks off":             {halfway{st}, false},
		"a copy that can't be put on record": {unrecorded{st}, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(shortTestFolder(t), "s")
			l, err := listenSocket(t.Context(), path, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			logger := slog.New(slog.DiscardHandler)
			mux := http.NewServeMux()
			mux.Handle("POST "+snapshotPath, snapshotHandler(tc.store, newTestKEK(t), credential.IssuerURL{}, time.Now, logger))
			run(t, newHTTPServer("socket", l, mux, Default().Timeouts, nil, logger).Run)
			var got bytes.Buffer
			err = fetchSnapshot(t.Context(), path, &got)
			if (err == nil) != tc.works {
				t.Errorf("%d bytes, %v", got.Len(), err)
			}
			if errors.Is(err, errNobodyServes) {
				t.Error("taken for a broker that is not running")
			}
		})
	}
}

// A broker of an older version sends its store without a seal.
func TestACopyWithoutASealIsNoBackup(t *testing.T) {
	folder := shortTestFolder(t)
	c := Config{doc: Document{DataDir: folder}}
	l, err := listenSocket(t.Context(), c.Socket(), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	plain := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<16)) })
	run(t, newHTTPServer("socket", l, plain, Default().Timeouts, nil, slog.New(slog.DiscardHandler)).Run)
	to := filepath.Join(folder, "copy.db")
	if hot, err := Backup(t.Context(), c, to, time.Now); !hot || err == nil || !strings.Contains(err.Error(), "not sealed") {
		t.Errorf("hot %v, %v", hot, err)
	}
	if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a backup was left: %v", err)
	}
}

// What a killed backup left doesn't keep the next one from its name, and a
// backup leaves nothing but itself.
func TestAKilledBackupIsInNobodysWay(t *testing.T) {
	folder := shortTestFolder(t)
	d := Default()
	d.Issuer, d.Ops.Listen = "http://127.0.0.1:8443", ""
	made, err := Init(t.Context(), InitOptions{
		Folder: filepath.Join(folder, "data"), Document: d, Operator: "admin", Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	config, err := Load(made.Config, NoEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	backups := filepath.Join(folder, "backups")
	to := filepath.Join(backups, "copy.db")
	if err := os.Mkdir(backups, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{to + ".partial", filepath.Join(backups, ".copy.db.partial-1")} {
		if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, taken := range []bool{false, true} {
		if _, err := Backup(t.Context(), config, to, time.Now); (err != nil) != taken {
			t.Errorf("the name is taken %v: %v", taken, err)
		}
	}
	entries, err := os.ReadDir(backups)
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v: want what was left and the copy", entries, err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Backup(cancelled, config, to+"2", time.Now); err == nil {
		t.Error("a backup that was cancelled")
	}
	if entries, err = os.ReadDir(backups); err != nil || len(entries) != 3 {
		t.Errorf("%v, %v: a backup that failed leaves nothing", entries, err)
	}
}
