// Package auditlog keeps the audit log provable: it signs the heads of the
// chains as they grow, checks the whole log against them, and writes exports
// that can be checked elsewhere. It never writes a record itself.
package auditlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
)

// Heads is the table of signed heads: the newest of each chain, by its name.
// Progress says up to where in the log heads were signed.
const (
	Heads    store.Table = "audit_heads"
	Progress store.Table = "audit_progress"
)

// Bounds of the keeper's work.
const (
	DefaultInterval = time.Minute
	DefaultClosing  = 10 * time.Second
	countTimeout    = time.Second // for the count of what is left unsigned
	batchRecords    = 10_000      // read at once
	batchHeads      = 500         // signed and written in one commit
)

// Config is what a Keeper needs.
type Config struct {
	Store store.Store
	// Signer signs. Where the key can't be had yet, it is nil, and Later is asked
	// whenever it is needed, until it has one: nothing is signed meanwhile.
	Signer   *audit.Signer
	Later    func(context.Context) (*audit.Signer, error)
	Issuer   string        // named in exports
	Interval time.Duration // between two signings; default DefaultInterval
	// Closing is how long the last signing may take when Run ends; default
	// DefaultClosing.
	Closing time.Duration
	Now     func() time.Time
	Logger  *slog.Logger
}

// Keeper signs, checks and exports the log of one writer.
type Keeper struct {
	cfg    Config
	signer atomic.Pointer[audit.Signer]
}

// New returns a Keeper. Without a store or a signer there is none.
func New(cfg Config) (*Keeper, error) {
	if cfg.Store == nil || cfg.Signer == nil && cfg.Later == nil {
		return nil, errors.New("auditlog: a store and a signer are required")
	}
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Closing <= 0 {
		cfg.Closing = DefaultClosing
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{cfg: cfg}
	k.signer.Store(cfg.Signer)
	return k, nil
}

// key returns what signs.
func (k *Keeper) key(ctx context.Context) (*audit.Signer, error) {
	if signer := k.signer.Load(); signer != nil {
		return signer, nil
	}
	signer, err := k.cfg.Later(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: the key that signs heads: %w", ErrNoKey, err)
	}
	k.signer.Store(signer)
	return signer, nil
}

// ErrNoKey means that the key which signs heads can't be had yet.
var ErrNoKey = errors.New("auditlog: no key")

// Run signs heads until ctx ends, and a last time then. A failure is logged
// and tried again at the next turn; the last one is returned. A backlog too
// long for the end is none: it is logged, and signed after the next start.
func (k *Keeper) Run(ctx context.Context) error {
	turn := time.NewTicker(k.cfg.Interval)
	defer turn.Stop()
	for {
		select {
		case <-turn.C:
			if err := k.Sign(ctx); err != nil && ctx.Err() == nil {
				k.cfg.Logger.Error("signing the heads of the audit log failed", "error", err)
			}
		case <-ctx.Done():
			return k.signLast(context.WithoutCancel(ctx))
		}
	}
}

// signLast signs what it can before the end.
func (k *Keeper) signLast(ctx context.Context) error {
	last, cancel := context.WithTimeout(ctx, k.cfg.Closing)
	defer cancel()
	err := k.Sign(last)
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrNoKey) && (!errors.Is(err, context.DeadlineExceeded) || last.Err() == nil) {
		return fmt.Errorf("auditlog: signing the last heads: %w", err)
	}
	left := []any{"tried_for", k.cfg.Closing}
	if n, err := k.Unsigned(ctx); err == nil {
		left = append(left, "records", n)
	}
	k.cfg.Logger.Warn("the newest audit records are not covered by signed heads yet: they will be after the next start", left...)
	return nil
}

// Unsigned returns how many records come after those for which heads were signed.
func (k *Keeper) Unsigned(ctx context.Context) (n uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	err = k.cfg.Store.View(ctx, func(r store.Reader) error {
		position, _, err := progress(r)
		if err != nil {
			return err
		}
		end, err := r.LogEnd()
		n = end - min(end, position)
		return err
	})
	return n, err
}

// Sign signs the heads of all chains that have grown since the last time.
func (k *Keeper) Sign(ctx context.Context) error {
	for {
		more, err := k.signNext(ctx)
		if err != nil || !more {
			return err
		}
	}
}

// progressKey is the one row of Progress: its value is the position in the log.
const progressKey = "signed"

// pending is a head to be signed, and the version of the row that it replaces.
type pending struct {
	head    audit.Head
	version uint64
}

// signNext signs for the next stretch of the log.
func (k *Keeper) signNext(ctx context.Context) (more bool, err error) {
	var to, version uint64
	var heads []pending
	err = k.cfg.Store.View(ctx, func(r store.Reader) error {
		heads, to, version, more, err = nextStretch(r)
		return err
	})
	if err != nil || len(heads) == 0 {
		return false, err
	}
	signer, err := k.key(ctx)
	if err != nil {
		return false, err
	}
	signed := make([]string, len(heads))
	for i, p := range heads {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		p.head.Time, p.head.Issuer = k.cfg.Now(), k.cfg.Issuer
		signed[i] = signer.SignHead(p.head)
	}
	return more, k.cfg.Store.Update(ctx, func(tx store.Tx) error {
		for i, p := range heads {
			if _, err := tx.Put(Heads, p.head.String(), []byte(signed[i]), p.version); err != nil {
				return err
			}
		}
		_, err := tx.Put(Progress, progressKey, fmt.Append(nil, to), version)
		return err
	})
}

// nextStretch reads on from where heads were signed last: the heads of the
// chains that have grown since, and up to which position that is.
func nextStretch(r store.Reader) (heads []pending, to, version uint64, more bool, err error) {
	from, version, err := progress(r)
	if err != nil {
		return nil, 0, 0, false, err
	}
	newest := make(map[audit.Chain]store.Entry) // only the last of a chain is worth parsing
	n := 0
	for entry, err := range r.Log(from) {
		if err != nil {
			return nil, 0, 0, false, err
		}
		if n++; n > batchRecords || len(newest) == batchHeads {
			more = true
			break
		}
		newest[entry.Chain], to = entry, entry.Position
	}
	whole, err := untrimmed(r)
	if err != nil {
		return nil, 0, 0, false, err
	}
	heads = make([]pending, 0, len(newest))
	for chain, entry := range newest {
		var p pending
		if p.head, err = headAt(entry); err != nil {
			return nil, 0, 0, false, err
		}
		p.head.First = 1
		if !whole && p.head.Seq > 1 {
			if p.head.First, err = first(r, chain, p.head.Seq); err != nil {
				return nil, 0, 0, false, err
			}
		}
		row, err := r.Get(Heads, chain.String())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, 0, 0, false, err
		}
		p.version = row.Version
		heads = append(heads, p)
	}
	return heads, to, version, more, nil
}

// untrimmed reports whether the log still has its first record: retention then
// has removed none, and every chain has its own.
func untrimmed(r store.Reader) (bool, error) {
	for entry, err := range r.Log(0) {
		return entry.Position == 1, err
	}
	return false, nil
}

func progress(r store.Reader) (position, version uint64, err error) {
	row, err := r.Get(Progress, progressKey)
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(string(row.Value), &position); err != nil {
		return 0, 0, fmt.Errorf("auditlog: progress: %w", err)
	}
	return position, row.Version, nil
}

// headAt returns the head of a chain whose newest record is entry; First is
// left open.
func headAt(entry store.Entry) (audit.Head, error) {
	record, chain, err := audit.Parse(entry.Raw)
	if err != nil {
		return audit.Head{}, fmt.Errorf("auditlog: position %d: %w", entry.Position, err)
	}
	return audit.Head{Chain: chain, Seq: record.Seq, Hash: audit.Hash(entry.Raw)}, nil
}

// first returns the oldest record that the chain still has; seq if none is
// older.
func first(r store.Reader, chain audit.Chain, seq uint64) (uint64, error) {
	for entry, err := range r.Chain(chain, 0) {
		if err != nil {
			return 0, err
		}
		record, _, err := audit.Parse(entry.Raw)
		if err != nil {
			return 0, fmt.Errorf("auditlog: position %d: %w", entry.Position, err)
		}
		return record.Seq, nil
	}
	return seq, nil
}
