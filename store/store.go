// Package store is the broker's memory: ordered tables of versioned rows, a
// set of things that may happen only once, and the audit log, all changed in
// one durable transaction. It knows nothing of what the rows mean; the rules
// are in store/registry and above. Implementations pass store/storetest.
package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
)

// Errors that every implementation returns, wrapped or bare.
var (
	// ErrNotFound: no row under that key.
	ErrNotFound = errors.New("store: not found")
	// ErrChanged: a row is not at the version the caller decided on.
	ErrChanged = errors.New("store: changed since it was read")
	// ErrReplayed: this happened before and may happen only once.
	ErrReplayed = errors.New("store: already used")
	// ErrUnavailable: nothing was changed, or it can't be known; try later.
	// A full disk is one cause.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrSchema: the file was written by a newer version of the broker.
	ErrSchema = errors.New("store: schema is newer than this program")
)

// Table names a set of rows. The packages that own rows declare their tables.
type Table string

// Key joins the parts of a row's key. Parts never hold a NUL byte: the
// grammars of all ids exclude it.
func Key(parts ...string) string { return strings.Join(parts, "\x00") }

// Row is one row as it was read. Value is valid until the transaction ends and
// must not be changed.
type Row struct {
	Key     string
	Value   []byte
	Version uint64 // never 0, never given twice in one table
}

// Ref names a row at the version on which a decision rests. Version 0 means
// that the row must not exist.
type Ref struct {
	Table   Table
	Key     string
	Version uint64
}

// Entry is one audit record as it was written.
type Entry struct {
	Position uint64      // in the whole log, from 1, in order of commit
	Previous uint64      // position of the one before it in its chain, which may be gone; 0: none
	Chain    audit.Chain // the chain it belongs to
	Raw      []byte      // the line without its end; valid until the transaction ends
}

// Reader reads one consistent state.
type Reader interface {
	// Get returns a row, or ErrNotFound.
	Get(t Table, key string) (Row, error)
	// Scan yields the rows whose keys begin with prefix and come after after
	// ("" for all), in byte order.
	Scan(t Table, prefix, after string) iter.Seq2[Row, error]
	// Log yields the audit records after position, in order of commit.
	Log(after uint64) iter.Seq2[Entry, error]
	// Chain yields the records of one chain after sequence number seq, in order.
	Chain(c audit.Chain, seq uint64) iter.Seq2[Entry, error]
	// ChainBack yields the records of one chain that stand at position or
	// before it, newest first.
	ChainBack(c audit.Chain, position uint64) iter.Seq2[Entry, error]
	// LogEnd returns the position of the newest record, 0 if there is none.
	LogEnd() (uint64, error)
}

// Tx reads and writes. Reads see the transaction's own writes, except that Log,
// Chain and ChainBack do not show records appended in it.
type Tx interface {
	Reader
	// Check returns ErrChanged unless every row is at its version.
	Check(refs ...Ref) error
	// Put writes a row that is at version ifVersion (0: does not exist) and
	// returns its new version, or ErrChanged.
	Put(t Table, key string, value []byte, ifVersion uint64) (uint64, error)
	// Delete removes a row that is at version ifVersion, or returns ErrChanged.
	Delete(t Table, key string, ifVersion uint64) error
	// Once remembers (space, key) until until and returns ErrReplayed if it is
	// remembered already. now is the caller's clock: what expired before it may
	// be forgotten.
	Once(space, key string, now, until time.Time) error
	// Append adds a record to its chain in this same commit. Seq and Prev are
	// assigned at the commit.
	Append(r audit.Record)
}

// Store is a transactional store. All methods are safe for concurrent use.
type Store interface {
	// View runs fn on one consistent state.
	View(ctx context.Context, fn func(Reader) error) error
	// Update runs fn and commits what it wrote. When it returns nil, all of it
	// is durable: fsync, or the server's commit, has returned. When fn returns
	// an error nothing of it is written and that error is returned. Any other
	// failure wraps ErrUnavailable.
	//
	// fn must not block and must have no effect but on tx and on variables of
	// its caller: it may run more than once, and other callers' functions wait
	// for it.
	//
	// A caller whose ctx ends may return early with ctx's error; the commit may
	// then still happen.
	Update(ctx context.Context, fn func(Tx) error) error
	// Sweep forgets what Once remembered until before now, and audit records
	// written before keepAuditFrom (zero: none); a bounded amount at a time. It
	// reports whether more is left.
	Sweep(ctx context.Context, now, keepAuditFrom time.Time) (more bool, err error)
	// Snapshot writes a consistent copy of everything to w while serving.
	Snapshot(ctx context.Context, w io.Writer) error
	// Healthy returns nil, or why writes are failing.
	Healthy() error
	// Close waits for transactions in flight and closes.
	Close() error
}
