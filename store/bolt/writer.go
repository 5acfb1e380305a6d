package bolt

import (
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
)

// headsCached bounds the chain heads kept in memory, about 200 bytes each.
const headsCached = 1 << 14

// writer applies to a bbolt transaction what functions have left in their
// overlays. It belongs to the committer, and outlives the transaction for what
// it knows of the file; forget drops that after a failed commit.
type writer struct {
	reader
	name    string // of this replica
	overlay overlay
	arena   arena
	dirty   bool // something was applied to tx

	// handed is the newest version given out per table in this process. It
	// only grows: a version that a failed function or commit has seen, and
	// someone may have remembered, is never given to another row.
	handed map[store.Table]uint64
	heads  *lru.LRU[string, head] // by chain; of this writer

	onceLoaded bool
	sets       []onceSet                // of the first class; see once.go
	once       []onceBucket             // of the others, that exist
	staged     map[onceDigest]onceEntry // by this batch
	lists      map[onceBucket][]byte    // not yet put into the transaction
	line       []byte
}

func (w *writer) init(s *Store) {
	w.name = s.opts.Writer
	w.handed = make(map[store.Table]uint64)
	w.heads, _ = lru.NewLRU[string, head](headsCached, nil) // fails for a size below 1 only
	w.staged = make(map[onceDigest]onceEntry)
	w.lists = make(map[onceBucket][]byte)
	w.overlay.init(w)
}

// begin starts on a transaction.
func (w *writer) begin(tx *bbolt.Tx) error {
	w.tx, w.tables, w.dirty = tx, w.tables[:0], false
	w.arena.reset()
	if !w.onceLoaded {
		return w.loadOnce()
	}
	return nil
}

// forget drops what may not be in the file after all.
func (w *writer) forget() {
	w.onceLoaded = false
	w.dropStaged()
	w.heads.Purge()
}

// nextVersion gives out a version.
func (w *writer) nextVersion(t store.Table) uint64 {
	newest := w.handed[t]
	if newest == 0 {
		if bucket := w.table(t); bucket != nil {
			newest = bucket.Sequence()
		}
	}
	w.handed[t] = newest + 1
	return newest + 1
}

// apply writes the overlay into the transaction. Nothing here depends on what
// a caller passed, so an error means that the file is damaged.
func (w *writer) apply(o *overlay) error {
	if len(o.rows) == 0 && len(o.once) == 0 && len(o.records) == 0 {
		return nil
	}
	w.dirty = true
	for row, change := range o.rows {
		if err := w.applyRow(row, change); err != nil {
			return fmt.Errorf("store: table %s: %w", row.table, err)
		}
	}
	for digest, entry := range o.once {
		if err := w.applyOnce(digest, entry); err != nil {
			return fmt.Errorf("store: once: %w", err)
		}
	}
	for i := range o.records {
		if err := w.applyRecord(&o.records[i]); err != nil {
			return fmt.Errorf("store: audit: %w", err)
		}
	}
	return nil
}

func (w *writer) applyRow(row rowName, change change) error {
	bucket := w.table(row.table)
	if change.stored == nil {
		if bucket == nil { // made and removed by the same function
			return nil
		}
		return bucket.Delete([]byte(row.key))
	}
	if bucket == nil {
		var err error
		if bucket, err = w.tx.CreateBucket([]byte(tablePrefix + string(row.table))); err != nil {
			return err
		}
	}
	if version := getUint(change.stored); version > bucket.Sequence() {
		if err := bucket.SetSequence(version); err != nil {
			return err
		}
	}
	return bucket.Put([]byte(row.key), change.stored)
}

// applyRecord appends one audit record to the log and to its chain.
func (w *writer) applyRecord(r *audit.Record) error {
	chain := audit.ChainFor(r.Tenant, w.name)
	name := chain.String()
	heads, log := w.tx.Bucket(bucketHeads), w.tx.Bucket(bucketLog)
	before, cached := w.heads.Get(name)
	if !cached {
		before = readHead(heads, chain, []byte(name))
	}
	position := log.Sequence() + 1
	if err := log.SetSequence(position); err != nil {
		return err
	}
	w.line = audit.AppendNext(w.line[:0], r, w.name, before.seq, before.hash)
	value := append(putUint(w.arena.take(8+len(w.line)), before.position), w.line...)
	log.FillPercent = 1 // positions only grow
	if err := log.Put(putUint(w.arena.take(8), position), value); err != nil {
		return err
	}
	after := head{seq: before.seq + 1, position: position, hash: audit.Hash(w.line)}
	if err := heads.Put([]byte(name), after.append(w.arena.take(headLength))); err != nil {
		return err
	}
	if after.seq%markEvery == 1 && after.seq > 1 {
		mark := putUint(append([]byte(name), 0), after.seq)
		if err := w.tx.Bucket(bucketMarks).Put(mark, putUint(nil, position)); err != nil {
			return err
		}
	}
	w.heads.Add(name, after)
	return nil
}

// arena holds what bbolt refers to until its transaction ends.
type arena struct {
	block []byte
	used  int // bytes taken since reset, over all blocks
}

const arenaBlock = 256 << 10

// reset makes all that was taken invalid.
func (a *arena) reset() { a.block, a.used = a.block[:0], 0 }

// take returns an empty slice that holds n bytes without growing.
func (a *arena) take(n int) []byte {
	a.used += n
	if n > arenaBlock {
		return make([]byte, 0, n)
	}
	if cap(a.block)-len(a.block) < n {
		a.block = make([]byte, 0, arenaBlock)
	}
	at := len(a.block)
	a.block = a.block[:at+n]
	return a.block[at : at : at+n]
}
