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

// tableFill is how full a page is left that splits. bbolt's half would leave
// ids that are handed out in order, as most are, in half-empty pages for ever.
const tableFill = 0.8

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
	handed   map[store.Table]uint64
	known    *lru.LRU[chainDigest, head] // heads of this writer's chains
	newest   map[chainDigest]head        // heads that this batch has made
	wroteRun func()                      // notes the run that this batch has written

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
	w.heads = &s.heads
	w.known, _ = lru.NewLRU[chainDigest, head](headsCached, nil) // fails for a size below 1 only
	w.newest = make(map[chainDigest]head)
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
	clear(w.newest)
	w.wroteRun = nil
	w.known.Purge()
}

// nextVersion gives out a version.
func (w *writer) nextVersion(t store.Table) uint64 {
	newest := w.handed[t]
	if newest == 0 {
		if bucket := w.table(t).bucket; bucket != nil {
			newest = bucket.Sequence()
		}
	}
	w.handed[t] = newest + 1
	return newest + 1
}

// apply writes the overlay into the transaction. Nothing here depends on what
// a caller passed, so an error means that the file is damaged.
func (w *writer) apply(o *overlay) error {
	if len(o.tables) == 0 && len(o.once) == 0 && len(o.records) == 0 {
		return nil
	}
	w.dirty = true
	for name, changes := range o.tables {
		for key, change := range changes.rows {
			if err := w.applyRow(name, key, change); err != nil {
				return fmt.Errorf("store: table %s: %w", name, err)
			}
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

func (w *writer) applyRow(name store.Table, key string, change change) error {
	table := w.table(name)
	bucket := table.bucket
	if change.stored == nil {
		if bucket == nil { // made and removed by the same function
			return nil
		}
		return bucket.Delete([]byte(key))
	}
	if bucket == nil {
		var err error
		if bucket, err = w.tx.CreateBucket([]byte(tablePrefix + string(name))); err != nil {
			return err
		}
		table.open(bucket)
	}
	if version := getUint(change.stored); version > bucket.Sequence() {
		if err := bucket.SetSequence(version); err != nil {
			return err
		}
	}
	bucket.FillPercent = tableFill
	return bucket.Put([]byte(key), change.stored)
}

// applyRecord appends one audit record to the log and to its chain.
func (w *writer) applyRecord(r *audit.Record) error {
	chain := audit.ChainFor(r.Tenant, w.name)
	before, digest, err := w.headBefore(chain)
	if err != nil {
		return err
	}
	log := w.tx.Bucket(bucketLog)
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
	if after.seq%markEvery == 1 && after.seq > 1 {
		mark := putUint(append([]byte(chain.String()), 0), after.seq)
		if err := w.tx.Bucket(bucketMarks).Put(mark, putUint(nil, position)); err != nil {
			return err
		}
	}
	w.newest[digest] = after
	return nil
}

// headBefore returns the head on which the chain's next record follows.
func (w *writer) headBefore(c audit.Chain) (head, chainDigest, error) {
	digest := digestChain(c.String())
	if h, found := w.newest[digest]; found {
		return h, digest, nil
	}
	if h, found := w.known.Get(digest); found {
		return h, digest, nil
	}
	h, err := w.committedHead(c, digest)
	return h, digest, err
}

// committedHead is headOf for the committer: its index is complete but for
// this batch, and what this batch has made is in newest.
func (w *writer) committedHead(c audit.Chain, d chainDigest) (head, error) {
	position, _ := w.heads.at(d)
	if value := w.tx.Bucket(bucketLog).Get(putUint(nil, position)); value != nil {
		return headAt(position, value)
	}
	return w.restingHead(c)
}

// keep takes over what the commit has made durable.
func (w *writer) keep() {
	w.keepOnce()
	if len(w.newest) == 0 {
		return
	}
	var end uint64
	for digest, h := range w.newest {
		w.known.Add(digest, h)
		end = max(end, h.position)
	}
	w.heads.keep(w.newest, end)
	clear(w.newest)
	if w.wroteRun != nil {
		w.wroteRun()
		w.wroteRun = nil
	}
}

// finish completes the transaction once all functions have run.
func (w *writer) finish() error {
	if err := w.writeOnce(); err != nil || len(w.newest) == 0 {
		return err
	}
	var err error
	w.wroteRun, err = w.heads.writeRun(w.tx, w.newest, w.tx.Bucket(bucketLog).Sequence())
	return err
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
