package bolt

import (
	"bytes"
	"errors"
	"iter"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/store"
)

// reader reads one bbolt transaction. It is for one goroutine.
type reader struct {
	tx     *bbolt.Tx
	heads  *headIndex
	tables []openTable // few: a search from the front finds them fastest
}

type openTable struct {
	name   store.Table
	bucket *bbolt.Bucket
}

var _ store.Reader = (*reader)(nil)

var errRow = errors.New("store: damaged row")

// table returns a table's bucket, nil if nothing was ever written to it.
func (r *reader) table(t store.Table) *bbolt.Bucket {
	for _, o := range r.tables {
		if o.name == t {
			return o.bucket
		}
	}
	var room [64]byte
	bucket := r.tx.Bucket(append(append(room[:0], tablePrefix...), t...))
	if bucket != nil {
		r.tables = append(r.tables, openTable{t, bucket})
	}
	return bucket
}

// stored returns a row as it is stored, version first, or nil.
func (r *reader) stored(t store.Table, key string) []byte {
	bucket := r.table(t)
	if bucket == nil || key == "" {
		return nil
	}
	return bucket.Get([]byte(key))
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
		bucket := r.table(t)
		if bucket == nil {
			return
		}
		from := max(prefix, after)
		cursor := bucket.Cursor()
		key, stored := cursor.Seek([]byte(from))
		if after != "" && string(key) == after {
			key, stored = cursor.Next()
		}
		for ; key != nil && bytes.HasPrefix(key, []byte(prefix)); key, stored = cursor.Next() {
			if !yield(key, stored) {
				return
			}
		}
	}
}
