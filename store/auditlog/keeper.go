// Package auditlog keeps the audit log provable: it signs the heads of the
// chains as they grow, checks the whole log against them, and writes exports
// that can be checked elsewhere. It never writes a record itself.
package auditlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	batchRecords    = 10_000 // read at once
	batchHeads      = 500    // signed and written in one commit
)

// Config is what a Keeper needs.
type Config struct {
	Store    store.Store
	Signer   *audit.Signer
	Issuer   string        // named in exports
	Interval time.Duration // between two signings; default DefaultInterval
	Now      func() time.Time
	Logger   *slog.Logger
}

// Keeper signs, checks and exports the log of one writer.
type Keeper struct{ cfg Config }

// New returns a Keeper. Without a store or a signer there is none.
func New(cfg Config) (*Keeper, error) {
	if cfg.Store == nil || cfg.Signer == nil {
		return nil, errors.New("auditlog: a store and a signer are required")
	}
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Keeper{cfg}, nil
}

// Run signs heads until ctx ends, and a last time then. A failure is logged
// and tried again at the next turn; the last one is returned.
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
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			return k.Sign(last)
		}
	}
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

// signNext signs for the next stretch of the log.
func (k *Keeper) signNext(ctx context.Context) (more bool, err error) {
	var from, to, version uint64
	newest := make(map[audit.Chain]audit.Head)
	err = k.cfg.Store.View(ctx, func(r store.Reader) error {
		if from, version, err = progress(r); err != nil {
			return err
		}
		n := 0
		for entry, err := range r.Log(from) {
			if err != nil {
				return err
			}
			if n++; n > batchRecords || len(newest) == batchHeads {
				more = true
				break
			}
			h, err := headAt(entry)
			if err != nil {
				return err
			}
			newest[entry.Chain], to = h, entry.Position
		}
		for chain, h := range newest {
			if h.First, err = first(r, chain, h.Seq); err != nil {
				return err
			}
			newest[chain] = h
		}
		return nil
	})
	if err != nil || len(newest) == 0 {
		return false, err
	}
	signed := make(map[audit.Chain]string, len(newest))
	for chain, h := range newest {
		h.Time = k.cfg.Now()
		signed[chain] = k.cfg.Signer.SignHead(h)
	}
	return more, k.cfg.Store.Update(ctx, func(tx store.Tx) error {
		for chain, jws := range signed {
			if err := put(tx, Heads, chain.String(), []byte(jws)); err != nil {
				return err
			}
		}
		_, err := tx.Put(Progress, progressKey, fmt.Append(nil, to), version)
		return err
	})
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

func put(tx store.Tx, t store.Table, key string, value []byte) error {
	row, err := tx.Get(t, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	_, err = tx.Put(t, key, value, row.Version)
	return err
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
