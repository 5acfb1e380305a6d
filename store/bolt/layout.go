package bolt

import (
	"encoding/binary"
	"fmt"
	"strconv"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/store"
)

// The file's buckets. Integers are big-endian, so that they sort.
//
//	meta            "schema" → decimal; "indexed" → position up to which runs are complete
//	t/<table>       key → version(8) value; the bucket's sequence is the newest version
//	log             position(8) → position of the one before in its chain(8) line; the
//	                bucket's sequence is the newest position
//	runs            number(8) → list of digest(16) of a chain, position(8) of its newest record
//	heads           chain → its newest record, once that has left the log: seq(8) position(8) hash(32)
//	marks           chain NUL seq(8) → position(8), for every markEvery-th record of a chain
//	once/0<end(8)>  number(8) → list of digest(16) until(8), milliseconds; see once.go
//	once/<class><end(8)>  digest(16) → until(8)
const schema = 1

var (
	bucketMeta  = []byte("meta")
	bucketLog   = []byte("log")
	bucketHeads = []byte("heads")
	bucketRuns  = []byte("runs")
	bucketMarks = []byte("marks")
	keySchema   = []byte("schema")
	keyIndexed  = []byte("indexed")
	keyProbe    = []byte("probe")
)

const (
	tablePrefix = "t/"
	oncePrefix  = "once/"
)

// checkSchema prepares an empty file and refuses what it can't serve. size is
// the file's.
func (s *Store) checkSchema(size int64) error {
	var found string
	var foreign bool
	err := s.db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > size {
			return fmt.Errorf("store: %s is cut short: %d of %d bytes", s.opts.Path, size, tx.Size())
		}
		if meta := tx.Bucket(bucketMeta); meta != nil {
			found = string(meta.Get(keySchema))
		} else if name, _ := tx.Cursor().First(); name != nil {
			foreign = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	if foreign {
		return fmt.Errorf("store: %s is some other program's file", s.opts.Path)
	}
	if found == "" {
		return s.create()
	}
	version, err := strconv.Atoi(found)
	if err != nil || version < 1 {
		return fmt.Errorf("store: %s: schema %q makes no sense", s.opts.Path, found)
	}
	if version > schema {
		return fmt.Errorf("%w: %s has schema %d, this program knows %d", store.ErrSchema, s.opts.Path, version, schema)
	}
	return nil
}

func (s *Store) create() error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketLog, bucketHeads, bucketMarks, bucketRuns} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keySchema, []byte(strconv.Itoa(schema)))
	})
	if err != nil {
		return fmt.Errorf("store: %s: %w", s.opts.Path, err)
	}
	return nil
}

func putUint(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }

func getUint(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
