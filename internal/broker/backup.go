package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// snapshotPath answers a POST on the local socket with a backup.
const snapshotPath = "/snapshot"

// Backup writes a consistent copy of the store to the file to, mode 0600,
// which must not exist. A broker that is serving makes it, without a pause,
// over the socket in its data folder; where none is, the file is read itself.
// The copy is checked before it gets its name.
//
// It holds no private key in the clear, and is sealed under the key-encryption
// key: to restore it, or to make another that restores, takes that key, which is
// not in it and is better kept elsewhere.
func Backup(ctx context.Context, c Config, to string, now func() time.Time) (hot bool, err error) {
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("backup: %s: %w", to, orExists(err))
	}
	// Mode 0600, and a name of its own: what a killed backup left is in nobody's way.
	f, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".partial-*")
	if err != nil {
		return false, fmt.Errorf("backup: %w", err)
	}
	partial := f.Name()
	defer func() { _ = os.Remove(partial) }()
	hot = true
	if err = fetchSnapshot(ctx, c.Socket(), f); errors.Is(err, errNobodyServes) {
		hot, err = false, readSnapshot(ctx, c, f, now)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return hot, fmt.Errorf("backup: %w", err)
	}
	if err := checkSealed(partial); err != nil {
		return hot, fmt.Errorf("backup: %w", err)
	}
	if err := checkPages(partial); err != nil {
		return hot, fmt.Errorf("backup: the copy is damaged: %w", err)
	}
	if err := os.Link(partial, to); err != nil { // unlike a rename, never overwrites
		return hot, fmt.Errorf("backup: %w", err)
	}
	return hot, syncFolder(filepath.Dir(to))
}

// checkSealed refuses what a broker sent that seals no backups yet. Whether the
// seal is good, only the key-encryption key can tell, which this may not have.
func checkSealed(path string) error {
	f, err := os.Open(path) //nolint:gosec // the copy itself
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_, _, err = findSeal(f, info.Size())
	if errors.Is(err, errNoSeal) {
		err = errors.New("the copy is not sealed: an older version is serving, restart it")
	}
	return err
}

func orExists(err error) error {
	if err == nil {
		return fs.ErrExist
	}
	return err
}

var errNobodyServes = errors.New("no broker serves this data folder")

// fetchSnapshot has the serving broker write its store to w.
func fetchSnapshot(ctx context.Context, socket string, w io.Writer) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://broker"+snapshotPath, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return errNobodyServes
	}
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end or given up
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return fmt.Errorf("the broker answered %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	_, err = io.Copy(w, resp.Body) // an answer that was cut short is an error here
	return err
}

// readSnapshot takes the copy from the file of a broker that is not running.
func readSnapshot(ctx context.Context, c Config, w io.Writer, now func() time.Time) error {
	if _, err := os.Stat(c.StorePath()); err != nil { // opening would create one
		return err
	}
	logger := slog.New(slog.DiscardHandler)
	client, err := reachVault(ctx, c, logger)
	if err != nil {
		return err
	}
	kek, err := loadKEK(c, client, logger)
	if err != nil {
		return err
	}
	st, _, err := openStore(ctx, c.StorePath(), c, bolt.Options{LockTimeout: time.Second, Now: now})
	if err != nil {
		return err
	}
	// Sealed under a key that is not the store's, it could never be restored.
	if err = keys.OpensAll(ctx, st, kek); err == nil {
		err = recordEvent(ctx, st, event(now(), "broker.backup", "a copy while nobody served"))
	}
	if err == nil {
		err = writeBackup(ctx, st, kek, c.issuer, now(), w)
	}
	return errors.Join(err, st.Close())
}

// snapshotHandler serves the local socket only. Who may open that is the owner
// of the data folder, who could read the file itself.
func snapshotHandler(st store.Store, kek keys.KEK, issuer credential.IssuerURL, now func() time.Time, logger *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The record first, so that the backup holds it too.
		if err := recordEvent(r.Context(), st, event(now(), "broker.backup", "a copy while serving")); err != nil {
			logger.Error("backup refused", "error", err)
			http.Error(w, "the audit record can't be written", http.StatusServiceUnavailable)
			return
		}
		// A large store takes longer than any request.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
			http.Error(w, "no deadline", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		start := time.Now()
		if err := writeBackup(r.Context(), st, kek, issuer, now(), w); err != nil {
			logger.Error("backup failed", "error", err)
			panic(http.ErrAbortHandler) // half a copy must not pass for a whole one
		}
		logger.Info("backup taken", "took", time.Since(start))
	})
}

// checkPages opens a copy for reading only and checks every page of it.
func checkPages(path string) (err error) {
	defer func() { // bbolt panics on pages that make no sense
		if p := recover(); p != nil {
			err = fmt.Errorf("unreadable: %v", p)
		}
	}()
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		// A page beyond the end of a mapped file is a fault that nothing recovers from.
		if tx.Size() > info.Size() {
			return fmt.Errorf("%d bytes of %d", info.Size(), tx.Size())
		}
		var faults bytes.Buffer
		n := 0
		for fault := range tx.Check() { // to its end: it is another goroutine's channel
			if n++; n <= 3 {
				fmt.Fprintf(&faults, "; %v", fault)
			}
		}
		if n > 0 {
			return fmt.Errorf("%d faults%s", n, faults.String())
		}
		return nil
	})
	return errors.Join(err, db.Close())
}
