package bolt

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
)

// Limits of a row.
const (
	MaxKeyLength   = 2 << 10 // bytes
	MaxValueLength = 4 << 20 // bytes
)

// overlay is what one function has written so far, over the state that it
// reads: the file and what the functions before it in the same commit wrote.
// Nothing of it reaches the transaction before the function has returned nil.
type overlay struct {
	w       *writer
	tables  map[store.Table]*tableChanges
	once    map[onceDigest]onceEntry
	records []audit.Record
}

// tableChanges is what was written to one table.
type tableChanges struct {
	rows   map[string]change
	keys   []string // of rows
	sorted bool     // keys are
}

// change is a row as it will be stored, version first; nil: removed.
type change struct{ stored []byte }

type onceEntry struct {
	bucket onceBucket
	until  int64 // Unix milliseconds
}

var _ store.Tx = (*overlay)(nil)

func (o *overlay) init(w *writer) {
	o.w = w
	o.tables = make(map[store.Table]*tableChanges)
	o.once = make(map[onceDigest]onceEntry)
}

func (o *overlay) reset() {
	clear(o.tables)
	clear(o.once)
	clear(o.records)
	o.records = o.records[:0]
}

// stored returns a row as it is stored, nil if there is none.
func (o *overlay) stored(t store.Table, key string) []byte {
	if changes := o.tables[t]; changes != nil {
		if c, written := changes.rows[key]; written {
			return c.stored
		}
	}
	return o.w.stored(t, key)
}

// Get implements store.Reader.
func (o *overlay) Get(t store.Table, key string) (store.Row, error) {
	return asRow(key, o.stored(t, key))
}

// Scan implements store.Reader. Rows that the function writes while it scans
// may be missed.
func (o *overlay) Scan(t store.Table, prefix, after string) iter.Seq2[store.Row, error] {
	return func(yield func(store.Row, error) bool) {
		added := o.added(t, prefix, after)
		show := func(key string) bool {
			stored := o.stored(t, key)
			return stored == nil || yield(asRow(key, stored))
		}
		for k := range o.w.scan(t, prefix, after) {
			key := string(k)
			for len(added) > 0 && added[0] < key {
				if !show(added[0]) {
					return
				}
				added = added[1:]
			}
			if len(added) > 0 && added[0] == key {
				added = added[1:]
			}
			if !show(key) {
				return
			}
		}
		for _, key := range added {
			if !show(key) {
				return
			}
		}
	}
}

// added returns the keys that were written in this range, sorted. The caller's
// own, since what is written while it scans sorts the table's keys again.
func (o *overlay) added(t store.Table, prefix, after string) []string {
	changes := o.tables[t]
	if changes == nil {
		return nil
	}
	if !changes.sorted {
		slices.Sort(changes.keys)
		changes.sorted = true
	}
	from, _ := slices.BinarySearch(changes.keys, max(prefix, after+"\x00"))
	to := from
	for to < len(changes.keys) && strings.HasPrefix(changes.keys[to], prefix) {
		to++
	}
	return slices.Clone(changes.keys[from:to])
}

// write notes a change.
func (o *overlay) write(t store.Table, key string, c change) {
	changes := o.tables[t]
	if changes == nil {
		changes = &tableChanges{rows: make(map[string]change)}
		o.tables[t] = changes
	}
	if _, again := changes.rows[key]; !again {
		key = strings.Clone(key)
		changes.keys, changes.sorted = append(changes.keys, key), false
	}
	changes.rows[key] = c
}

// Log implements store.Reader.
func (o *overlay) Log(after uint64) iter.Seq2[store.Entry, error] { return o.w.Log(after) }

// Chain implements store.Reader.
func (o *overlay) Chain(c audit.Chain, seq uint64) iter.Seq2[store.Entry, error] {
	return o.w.Chain(c, seq)
}

// ChainBack implements store.Reader.
func (o *overlay) ChainBack(c audit.Chain, position uint64) iter.Seq2[store.Entry, error] {
	return o.w.ChainBack(c, position)
}

// LogEnd implements store.Reader.
func (o *overlay) LogEnd() (uint64, error) { return o.w.LogEnd() }

// Check implements store.Tx.
func (o *overlay) Check(refs ...store.Ref) error {
	for _, ref := range refs {
		if getUint(o.stored(ref.Table, ref.Key)) != ref.Version {
			return fmt.Errorf("%w: %s", store.ErrChanged, ref.Table)
		}
	}
	return nil
}

// Put implements store.Tx.
func (o *overlay) Put(t store.Table, key string, value []byte, ifVersion uint64) (uint64, error) {
	switch {
	case t == "" || len(t) > MaxKeyLength:
		return 0, fmt.Errorf("store: table name of %d bytes, 1 to %d", len(t), MaxKeyLength)
	case key == "" || len(key) > MaxKeyLength:
		return 0, fmt.Errorf("store: table %s: key of %d bytes, 1 to %d", t, len(key), MaxKeyLength)
	case len(value) > MaxValueLength:
		return 0, fmt.Errorf("store: table %s: value of %d bytes, at most %d", t, len(value), MaxValueLength)
	}
	if err := o.Check(store.Ref{Table: t, Key: key, Version: ifVersion}); err != nil {
		return 0, err
	}
	version := o.w.nextVersion(t)
	stored := append(putUint(o.w.arena.take(8+len(value)), version), value...)
	o.write(t, key, change{stored})
	return version, nil
}

// Delete implements store.Tx.
func (o *overlay) Delete(t store.Table, key string, ifVersion uint64) error {
	if ifVersion == 0 {
		return fmt.Errorf("%w: %s: a row that does not exist can't be removed", store.ErrChanged, t)
	}
	if err := o.Check(store.Ref{Table: t, Key: key, Version: ifVersion}); err != nil {
		return err
	}
	o.write(t, key, change{})
	return nil
}

// Once implements store.Tx.
func (o *overlay) Once(space, key string, now, until time.Time) error {
	digest := digestOnce(space, key)
	if e, found := o.once[digest]; found && e.until >= now.UnixMilli() {
		return store.ErrReplayed
	}
	if o.w.remembers(digest, now) {
		return store.ErrReplayed
	}
	o.once[digest] = onceEntry{bucket: onceBucketFor(now, until), until: until.UnixMilli()}
	return nil
}

// Append implements store.Tx.
func (o *overlay) Append(r audit.Record) { o.records = append(o.records, r) }
