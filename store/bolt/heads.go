package bolt

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/audit"
)

// head is the newest record of a chain.
type head struct {
	seq, position uint64
	hash          [32]byte
}

const headLength = 8 + 8 + 32

func (h head) append(b []byte) []byte {
	return append(putUint(putUint(b, h.seq), h.position), h.hash[:]...)
}

// chainDigest stands for a chain's name in the index.
type chainDigest [16]byte

func digestChain(name string) chainDigest {
	var room [160]byte
	sum := sha256.Sum256(append(room[:0], name...))
	return chainDigest(sum[:16])
}

// headIndex says where in the log the newest record of each chain is, 40 bytes
// of memory a chain. With a row for each chain instead, and a million of them,
// every record would rewrite a page somewhere in the file. In the file there
// are runs: now and then what changed since the run before is appended, and
// what came after the last run is read from the log when the file is opened.
type headIndex struct {
	mu        sync.RWMutex
	positions map[chainDigest]uint64
	end       uint64 // position in the log up to which the index is complete

	// The committer's own.
	changed map[chainDigest]uint64 // since the last run
	indexed uint64                 // position up to which runs are complete
	entries int                    // in all runs
	every   uint64                 // records between two runs: runEvery
}

// Bounds of the index.
const (
	runEvery       = 1 << 15 // records between two runs, read again at opening
	runListLength  = 1 << 12 // entries in one row of a run
	runEntryLength = len(chainDigest{}) + 8
)

// at returns where the newest record of a chain is, 0 if the index has none,
// and up to where it is complete.
func (x *headIndex) at(d chainDigest) (position, end uint64) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.positions[d], x.end
}

// load reads the index.
func (x *headIndex) load(tx *bbolt.Tx) error {
	log := tx.Bucket(bucketLog)
	oldest := log.Sequence() + 1
	if key, _ := log.Cursor().First(); key != nil {
		oldest = getUint(key)
	}
	entries := 0
	cursor := tx.Bucket(bucketRuns).Cursor()
	for _, list := cursor.First(); list != nil; _, list = cursor.Next() {
		entries += len(list) / runEntryLength
	}
	positions := make(map[chainDigest]uint64, entries) // at most twice what is needed
	for _, list := cursor.First(); list != nil; _, list = cursor.Next() {
		if len(list)%runEntryLength != 0 {
			return fmt.Errorf("store: a run of %d bytes makes no sense", len(list))
		}
		for entry := range slices.Chunk(list, runEntryLength) {
			if position := getUint(entry[len(chainDigest{}):]); position >= oldest {
				positions[chainDigest(entry)] = position
			}
		}
	}
	indexed := getUint(tx.Bucket(bucketMeta).Get(keyIndexed))
	changed := make(map[chainDigest]uint64)
	cursor = log.Cursor()
	for key, value := cursor.Seek(putUint(nil, indexed+1)); key != nil; key, value = cursor.Next() {
		chain, err := chainOf(value)
		if err != nil {
			return fmt.Errorf("%w: position %d: %w", errLog, getUint(key), err)
		}
		d := digestChain(chain.String())
		positions[d], changed[d] = getUint(key), getUint(key)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.positions, x.end = positions, log.Sequence()
	x.changed, x.indexed, x.entries = changed, indexed, entries
	return nil
}

// keep takes over what a commit has written.
func (x *headIndex) keep(written map[chainDigest]head, end uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for d, h := range written {
		x.positions[d] = h.position
		x.changed[d] = h.position
	}
	x.end = end
}

// writeRun appends a run when one is due. written is what this transaction
// has added to the log, which ends at end.
func (x *headIndex) writeRun(tx *bbolt.Tx, written map[chainDigest]head, end uint64) (func(), error) {
	if end-x.indexed < x.every {
		return nil, nil
	}
	changed := maps.Clone(x.changed)
	for d, h := range written {
		changed[d] = h.position
	}
	entries := x.entries + len(changed)
	if entries > 2*len(x.positions)+int(x.every) { //nolint:gosec // small // mostly superseded: write all anew
		oldest, _ := tx.Bucket(bucketLog).Cursor().First()
		all := maps.Clone(x.positions)
		maps.Copy(all, changed)
		maps.DeleteFunc(all, func(_ chainDigest, position uint64) bool { return position < getUint(oldest) })
		if err := tx.DeleteBucket(bucketRuns); err != nil {
			return nil, err
		}
		if _, err := tx.CreateBucket(bucketRuns); err != nil {
			return nil, err
		}
		changed, entries = all, len(all)
	}
	if err := putRun(tx.Bucket(bucketRuns), changed); err != nil {
		return nil, err
	}
	if err := tx.Bucket(bucketMeta).Put(keyIndexed, putUint(nil, end)); err != nil {
		return nil, err
	}
	return func() { x.changed, x.indexed, x.entries = make(map[chainDigest]uint64), end, entries }, nil
}

func putRun(runs *bbolt.Bucket, entries map[chainDigest]uint64) error {
	runs.FillPercent = 1
	var list []byte
	flush := func() error {
		number, err := runs.NextSequence()
		if err != nil {
			return err
		}
		err = runs.Put(putUint(nil, number), list)
		list = nil
		return err
	}
	for d, position := range entries {
		if list == nil {
			list = make([]byte, 0, runListLength*runEntryLength)
		}
		if list = putUint(append(list, d[:]...), position); len(list) == cap(list) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if list != nil {
		return flush()
	}
	return nil
}

// headOf returns the head of a chain in this transaction; of a chain without
// records its name's hash.
func (r *reader) headOf(c audit.Chain) (head, error) {
	log := r.tx.Bucket(bucketLog)
	position, end := r.heads.at(digestChain(c.String()))
	last := log.Sequence()
	if position > last { // newer than what this transaction sees
		position, end = 0, 0
	}
	// What the index doesn't know of yet: the records of one commit. Or, for a
	// transaction that has been open while its chain grew, perhaps many.
	cursor := log.Cursor()
	for key, value := cursor.Last(); key != nil && getUint(key) > end; key, value = cursor.Prev() {
		chain, err := chainOf(value)
		if err != nil {
			return head{}, err
		}
		if chain == c {
			position = getUint(key)
			break
		}
	}
	if value := log.Get(putUint(nil, position)); value != nil {
		return headAt(position, value)
	}
	return r.restingHead(c)
}

// restingHead returns the head of a chain of which the log has no record: what
// retention left behind, or the beginning.
func (r *reader) restingHead(c audit.Chain) (head, error) {
	b := r.tx.Bucket(bucketHeads).Get([]byte(c.String()))
	if b == nil {
		return head{hash: c.Genesis()}, nil
	}
	if len(b) != headLength {
		return head{}, errLog
	}
	h := head{seq: getUint(b), position: getUint(b[8:])}
	copy(h.hash[:], b[16:])
	return h, nil
}

// headAt returns the head of a chain whose newest record is this one.
func headAt(position uint64, value []byte) (head, error) {
	if len(value) < 8 {
		return head{}, errLog
	}
	digits, found := bytes.CutPrefix(value[8:], []byte(`{"seq":`))
	digits, _, _ = bytes.Cut(digits, []byte{','})
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	if !found || err != nil {
		return head{}, errLog
	}
	return head{seq: seq, position: position, hash: audit.Hash(value[8:])}, nil
}

func chainOf(value []byte) (audit.Chain, error) {
	if len(value) < 8 {
		return audit.Chain{}, errLog
	}
	return audit.ChainOf(value[8:])
}
