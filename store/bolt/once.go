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
			return onceBucket{byte(class), uint64(max(0, until.Unix())/width+1) * uint64(width)}
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

// onceUntil returns until when a digest is remembered, Unix milliseconds, 0 if
// it is not or is over at now.
func (w *writer) onceUntil(d onceDigest, now time.Time) int64 {
	for _, o := range w.once {
		if o.endsBefore(now) {
			continue
		}
		bucket := w.onceBucket(o)
		if bucket == nil {
			continue
		}
		if value := bucket.Get(d[:]); value != nil {
			if until := int64(getUint(value)); until >= now.UnixMilli() { //nolint:gosec // set from int64
				return until
			}
		}
	}
	return 0
}

func (w *writer) onceBucket(o onceBucket) *bbolt.Bucket {
	var room [32]byte
	return w.tx.Bucket(o.append(room[:0]))
}

// applyOnce remembers what a function asked to be remembered.
func (w *writer) applyOnce(d onceDigest, p onceEntry) error {
	var room [32]byte
	bucket := w.onceBucket(p.bucket)
	if bucket == nil {
		var err error
		if bucket, err = w.tx.CreateBucket(p.bucket.append(room[:0])); err != nil {
			return err
		}
		w.once = append(w.once, p.bucket)
		slices.SortFunc(w.once, func(a, b onceBucket) int { return int(a.class) - int(b.class) })
	}
	return bucket.Put(d[:], putUint(w.arena.take(8), uint64(max(0, p.until)))) //nolint:gosec // not negative
}
