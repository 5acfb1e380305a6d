package broker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

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
			l, err := listenSocket(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			logger := slog.New(slog.DiscardHandler)
			mux := http.NewServeMux()
			mux.Handle("POST "+snapshotPath, snapshotHandler(tc.store, time.Now, logger))
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
