package bolt

import (
	"bytes"
	"errors"
	"iter"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/store"
)

// reader reads one bbolt transaction. It is for one goroutine at a time.
type reader struct {
	tx     *bbolt.Tx
	heads  *headIndex
	tables []*openTable // few: a search from the front finds them fastest
	key    []byte       // room for the key that is looked for
}

// openTable is a table's bucket with its cursors, which bbolt would make anew
// for every lookup.
type openTable struct {
	name   store.Table
	bucket *bbolt.Bucket // nil if nothing was ever written to it
	get    *bbolt.Cursor
	scan   *bbolt.Cursor // nil while a scan uses it
}

var _ store.Reader = (*reader)(nil)

var errRow = errors.New("store: damaged row")

// table returns a table, whether or not it has a bucket.
func (r *reader) table(t store.Table) *openTable {
	for _, o := range r.tables {
		if o.name == t {
			return o
		}
	}
	o := &openTable{name: t}
	var room [64]byte
	o.open(r.tx.Bucket(append(append(room[:0], tablePrefix...), t...)))
	r.tables = append(r.tables, o)
	return o
}

func (o *openTable) open(bucket *bbolt.Bucket) {
	if o.bucket = bucket; bucket != nil {
		o.get = bucket.Cursor()
	}
}

// stored returns a row as it is stored, version first, or nil.
func (r *reader) stored(t store.Table, key string) []byte {
	table := r.table(t)
	if table.bucket == nil || key == "" {
		return nil
	}
	r.key = append(r.key[:0], key...)
	if found, stored := table.get.Seek(r.key); bytes.Equal(found, r.key) {
		return stored
	}
	return nil
}

// Get implements store.Reader.
func (r *reader) Get(t store.Table, key string) (store.Row, error) {
	return asRow(key, r.stored(t, key))
}

func asRow(key string, stored []byte) (store.Row, error) {
	switch {
	case stored == nil:
		return store.Row{}, store.ErrNotFound
	case len(stored) < 8:
		return store.Row{}, errRow
	}
	return store.Row{Key: key, Value: stored[8:len(stored):len(stored)], Version: getUint(stored)}, nil
}

// Scan implements store.Reader.
func (r *reader) Scan(t store.Table, prefix, after string) iter.Seq2[store.Row, error] {
	return func(yield func(store.Row, error) bool) {
		for key, stored := range r.scan(t, prefix, after) {
			if !yield(asRow(string(key), stored)) {
				return
			}
		}
	}
}

func (r *reader) scan(t store.Table, prefix, after string) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, stored []byte) bool) {
		table := r.table(t)
		if table.bucket == nil {
			return
		}
		cursor := table.scan
		table.scan = nil
		if cursor == nil {
			cursor = table.bucket.Cursor()
		}
		defer func() { table.scan = cursor }()
		r.key = append(r.key[:0], max(prefix, after)...)
		key, stored := cursor.Seek(r.key)
		if after != "" && string(key) == after {
			key, stored = cursor.Next()
		}
		for ; len(key) >= len(prefix) && key != nil && string(key[:len(prefix)]) == prefix; key, stored = cursor.Next() {
			if !yield(key, stored) {
				return
			}
		}
	}
}
