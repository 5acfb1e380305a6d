package bolt

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	bbolt "go.etcd.io/bbolt"
)

// What may happen only once is remembered in buckets by expiry, so that
// forgetting is dropping a bucket. A bucket spans one of three widths, by how
// long its entries live, so that even with lives of months only a few dozen
// are live at once; every live one is looked into.
var onceClasses = [...]struct {
	width time.Duration
	life  time.Duration // entries that live no longer than this
}{
	{time.Minute, 15 * time.Minute},
	{time.Hour, 24 * time.Hour},
	{24 * time.Hour, 1<<63 - 1},
}

// onceBucket is the name of one bucket: its class and its end, Unix seconds.
// Nothing in it is remembered beyond its end.
type onceBucket struct {
	class byte
	end   uint64
}

func onceBucketFor(now, until time.Time) onceBucket {
	life := until.Sub(now)
	for class, c := range onceClasses {
		if life <= c.life {
			width := int64(c.width / time.Second)
			return onceBucket{byte(class), uint64(max(0, until.Unix())/width+1) * uint64(width)} //nolint:gosec // neither is negative
		}
	}
	panic("the last class takes all")
}

func (o onceBucket) append(b []byte) []byte {
	return putUint(append(append(b, oncePrefix...), '0'+o.class), o.end)
}

func parseOnceBucket(name []byte) (onceBucket, error) {
	rest, found := bytes.CutPrefix(name, []byte(oncePrefix))
	if !found || len(rest) != 9 || int(rest[0]-'0') >= len(onceClasses) {
		return onceBucket{}, fmt.Errorf("store: bucket %q makes no sense", name)
	}
	return onceBucket{rest[0] - '0', getUint(rest[1:])}, nil
}

// endsBefore reports whether all that o remembers may be forgotten at now.
func (o onceBucket) endsBefore(now time.Time) bool { return int64(o.end) < now.Unix() } //nolint:gosec // set from int64

// listOnce returns the buckets that exist.
func listOnce(tx *bbolt.Tx) ([]onceBucket, error) {
	var all []onceBucket
	cursor := tx.Cursor()
	for name, _ := cursor.Seek([]byte(oncePrefix)); bytes.HasPrefix(name, []byte(oncePrefix)); name, _ = cursor.Next() {
		o, err := parseOnceBucket(name)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

// onceDigest is what is kept of a key: 128 bits, of which an attacker can't
// make two alike for less than he could guess a token's id.
type onceDigest [16]byte

func digestOnce(space, key string) onceDigest {
	var room [256]byte
	b := append(append(append(room[:0], space...), 0), key...)
	sum := sha256.Sum256(b)
	return onceDigest(sum[:16])
}

// onceSet is what one bucket of the first class holds, kept in memory too, 40
// bytes an entry: nearly all that is remembered is there and is asked for by
// every request. In the file it is a list in the order of arrival, so that a
// commit touches a page or two of it and not one for each entry. The other
// classes are looked up in the file.
type onceSet struct {
	onceBucket
	until map[onceDigest]int64 // Unix milliseconds
}

const (
	onceEntryLength = len(onceDigest{}) + 8
	onceListLength  = 128 // entries in one row of a list, at most
)

// loadOnce reads all sets, and the names of the other buckets.
func (w *writer) loadOnce() error {
	all, err := listOnce(w.tx)
	if err != nil {
		return err
	}
	w.onceLoaded, w.sets, w.once = true, nil, nil
	for _, o := range all {
		if o.class != 0 {
			w.once = append(w.once, o)
			continue
		}
		set := onceSet{o, make(map[onceDigest]int64)}
		cursor := w.onceBucket(o).Cursor()
		for key, list := cursor.First(); key != nil; key, list = cursor.Next() {
			if len(list)%onceEntryLength != 0 {
				return fmt.Errorf("store: a list of %d bytes makes no sense", len(list))
			}
			for entry := range slices.Chunk(list, onceEntryLength) {
				set.until[onceDigest(entry)] = int64(getUint(entry[len(onceDigest{}):])) //nolint:gosec // set from int64
			}
		}
		w.sets = append(w.sets, set)
	}
	return nil
}

// remembers reports whether a digest is remembered at now.
func (w *writer) remembers(d onceDigest, now time.Time) bool {
	from := now.UnixMilli()
	if e, found := w.staged[d]; found && e.until >= from {
		return true
	}
	for _, set := range w.sets {
		if until, found := set.until[d]; found && until >= from {
			return true
		}
	}
	for _, o := range w.once {
		if o.endsBefore(now) {
			continue
		}
		if value := w.onceBucket(o).Get(d[:]); value != nil && int64(getUint(value)) >= from { //nolint:gosec // set from int64
			return true
		}
	}
	return false
}

func (w *writer) onceBucket(o onceBucket) *bbolt.Bucket {
	var room [32]byte
	return w.tx.Bucket(o.append(room[:0]))
}

// applyOnce remembers what a function asked to be remembered. Entries of the
// first class are only staged: writeOnce writes those of the whole batch.
func (w *writer) applyOnce(d onceDigest, e onceEntry) error {
	if e.bucket.class == 0 {
		w.staged[d] = e
		list := w.lists[e.bucket]
		if list == nil {
			list = w.arena.take(onceListLength * onceEntryLength)
		}
		if list = putUint(append(list, d[:]...), unsigned(e.until)); len(list) == cap(list) {
			if err := w.writeList(e.bucket, list); err != nil {
				return err
			}
			list = nil
		}
		w.lists[e.bucket] = list
		return nil
	}
	if !slices.Contains(w.once, e.bucket) {
		if _, err := w.tx.CreateBucket(e.bucket.append(nil)); err != nil {
			return err
		}
		w.once = append(w.once, e.bucket)
	}
	return w.onceBucket(e.bucket).Put(d[:], putUint(w.arena.take(8), unsigned(e.until)))
}

// writeOnce writes what is staged.
func (w *writer) writeOnce() error {
	for o, list := range w.lists {
		if len(list) > 0 {
			if err := w.writeList(o, list); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *writer) writeList(o onceBucket, list []byte) error {
	bucket, err := w.tx.CreateBucketIfNotExists(o.append(nil))
	if err != nil {
		return err
	}
	number, err := bucket.NextSequence()
	if err != nil {
		return err
	}
	bucket.FillPercent = 1
	return bucket.Put(putUint(w.arena.take(8), number), list)
}

// keepOnce moves what is staged, and now in the file, to the sets.
func (w *writer) keepOnce() {
	for d, e := range w.staged {
		at := slices.IndexFunc(w.sets, func(s onceSet) bool { return s.onceBucket == e.bucket })
		if at < 0 {
			at = len(w.sets)
			w.sets = append(w.sets, onceSet{e.bucket, make(map[onceDigest]int64)})
		}
		w.sets[at].until[d] = e.until
	}
	w.dropStaged()
}

func (w *writer) dropStaged() {
	clear(w.staged)
	clear(w.lists)
}

// forgetOnce removes whole buckets.
func (w *writer) forgetOnce(tx *bbolt.Tx, expired []onceBucket) error {
	for _, o := range expired {
		if name := o.append(nil); tx.Bucket(name) != nil {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
		}
	}
	w.once = slices.DeleteFunc(w.once, func(o onceBucket) bool { return slices.Contains(expired, o) })
	w.sets = slices.DeleteFunc(w.sets, func(s onceSet) bool { return slices.Contains(expired, s.onceBucket) })
	return nil
}

func unsigned(n int64) uint64 { return uint64(max(0, n)) }
