// Package storetest is the suite that every store passes, and the stores that
// fail on demand with which others test what they do then. It is a library for
// tests.
package storetest

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/store"
)

// Maker makes the stores that the suite tests. All three are required; what
// they make is closed by the suite, and by them at the end of the test.
type Maker struct {
	// New returns an empty store.
	New func(testing.TB) store.Store
	// Reopen opens again what s, which is closed, was opened on.
	Reopen func(t testing.TB, s store.Store) store.Store
	// Restore returns a store with the contents of a snapshot.
	Restore func(t testing.TB, snapshot io.Reader) store.Store
}

// Run runs the suite.
func Run(t *testing.T, m Maker) {
	for name, test := range map[string]func(*testing.T, Maker){
		"Rows":                 testRows,
		"CompareAndSwap":       testCompareAndSwap,
		"VersionsNeverRepeat":  testVersions,
		"Scan":                 testScan,
		"ScanWhileWriting":     testScanWhileWriting,
		"ReadYourWrites":       testReadYourWrites,
		"LikeAMap":             testLikeAMap,
		"BadKeys":              testBadKeys,
		"FailedFunction":       testFailedFunction,
		"PanickingFunction":    testPanickingFunction,
		"EndedGoroutine":       testEndedGoroutine,
		"ConsistentView":       testConsistentView,
		"Cancelled":            testCancelled,
		"Closed":               testClosed,
		"Once":                 testOnce,
		"OnceExpiry":           testOnceExpiry,
		"OnceContention":       testOnceContention,
		"Contention":           testContention,
		"Audit":                testAudit,
		"AuditContention":      testAuditContention,
		"AuditFailedFunction":  testAuditFailed,
		"AuditLongChain":       testAuditLongChain,
		"AuditRetention":       testAuditRetention,
		"Reopen":               testReopen,
		"Snapshot":             testSnapshot,
		"SnapshotWhileWriting": testSnapshotWhileWriting,
	} {
		t.Run(name, func(t *testing.T) { test(t, m) })
	}
}

// errOwn is an error of a test's own function.
var errOwn = errors.New("storetest: the function's own error")

const table store.Table = "storetest"

// noon is the suite's clock where nothing else matters.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func update(t testing.TB, s store.Store, fn func(store.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, s store.Store, fn func(store.Reader) error) {
	t.Helper()
	if err := s.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// put writes a row whatever its version and returns the new one.
func put(t testing.TB, s store.Store, key, value string) (version uint64) {
	t.Helper()
	update(t, s, func(tx store.Tx) error {
		row, err := tx.Get(table, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		version, err = tx.Put(table, key, []byte(value), row.Version)
		return err
	})
	return version
}

// get returns a row's value, "-" if there is none.
func get(t testing.TB, s store.Store, key string) (value string, version uint64) {
	t.Helper()
	view(t, s, func(r store.Reader) error {
		row, err := r.Get(table, key)
		value, version = string(row.Value), row.Version
		if errors.Is(err, store.ErrNotFound) {
			value = "-"
			return nil
		}
		return err
	})
	return value, version
}

// scan returns "key=value" of the rows of a scan.
func scan(t testing.TB, r store.Reader, prefix, after string) (rows []string) {
	t.Helper()
	for row, err := range r.Scan(table, prefix, after) {
		if err != nil {
			t.Error(err)
			return nil
		}
		rows = append(rows, row.Key+"="+string(row.Value))
	}
	return rows
}

func wantRows(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
