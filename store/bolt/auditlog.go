package bolt

import (
	"bytes"
	"errors"
	"iter"
	"slices"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
)

// markEvery is how many records of one chain lie between two of its marks. A
// chain is read from mark to mark, backwards in between.
const markEvery = 256

var errLog = errors.New("store: damaged audit log")

// Log implements store.Reader.
func (r *reader) Log(after uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		cursor := r.tx.Bucket(bucketLog).Cursor()
		for key, value := cursor.Seek(putUint(nil, after+1)); key != nil; key, value = cursor.Next() {
			if len(key) != 8 || len(value) < 8 {
				yield(store.Entry{}, errLog)
				return
			}
			chain, err := audit.ChainOf(value[8:])
			if !yield(store.Entry{Position: getUint(key), Chain: chain, Raw: value[8:]}, err) || err != nil {
				return
			}
		}
	}
}

// LogEnd implements store.Reader.
func (r *reader) LogEnd() (uint64, error) { return r.tx.Bucket(bucketLog).Sequence(), nil }

// Chain implements store.Reader.
func (r *reader) Chain(c audit.Chain, seq uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		name := []byte(c.String())
		end, err := r.headOf(c)
		if err != nil {
			yield(store.Entry{}, err)
			return
		}
		log := r.tx.Bucket(bucketLog)
		next := seq + 1
		for next <= end.seq {
			last, position, ok := r.stretch(log, name, next, end)
			if !ok {
				yield(store.Entry{}, errLog)
				return
			}
			found := make([]store.Entry, 0, markEvery)
			for at := last; at >= next; at-- {
				value := log.Get(putUint(nil, position))
				if value == nil { // gone by retention, and all before it
					break
				}
				if len(value) < 8 {
					yield(store.Entry{}, errLog)
					return
				}
				found = append(found, store.Entry{Position: position, Chain: c, Raw: value[8:]})
				position = getUint(value)
			}
			for _, entry := range slices.Backward(found) {
				if !yield(entry, nil) {
					return
				}
			}
			next = last + 1
		}
	}
}

// stretch returns the record, with its position, from which to read backwards
// to next: the one before the next mark that is left, or the chain's newest.
func (r *reader) stretch(log *bbolt.Bucket, name []byte, next uint64, end head) (seq, position uint64, ok bool) {
	prefix := append(bytes.Clone(name), 0)
	key, value := r.tx.Bucket(bucketMarks).Cursor().Seek(putUint(prefix, next+1))
	if key == nil || !bytes.HasPrefix(key, prefix) || len(key) != len(prefix)+8 {
		return end.seq, end.position, true
	}
	marked := log.Get(value)
	return getUint(key[len(prefix):]) - 1, getUint(marked), marked != nil
}
