package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// How often it is found out whether a key-encryption key in Vault still does its
// work, and how long that may take.
const (
	kekEvery   = 5 * time.Second
	kekAgain   = time.Second // after a failure
	kekTimeout = 3 * time.Second
)

// kekPurpose is bound to what is sealed to find that out.
const kekPurpose = "tenantbroker key-encryption key check 1"

// kekWatch uses a key-encryption key in Vault between the times that it is
// needed, which are a rotation and a restart: that day is too late to learn that
// a policy has shrunk.
type kekWatch struct {
	kek keys.KEK
	now func() time.Time
	log *slog.Logger

	before []byte // what was sealed last: it has to open still, as what the store holds has

	mu    sync.Mutex
	err   error // of the last look; nil: it works, or nobody has looked yet
	since time.Time
}

// newKEKWatch returns nil for a key file: it was read at the start.
func newKEKWatch(c Config, kek keys.KEK, deps Deps) *kekWatch {
	if c.doc.KEKVaultKey == "" {
		return nil
	}
	return &kekWatch{kek: kek, now: deps.Now, log: deps.Logger}
}

// Run looks until ctx ends.
func (w *kekWatch) Run(ctx context.Context) error {
	if w == nil {
		<-ctx.Done()
		return nil
	}
	for {
		w.look(ctx)
		wait := kekEvery
		if w.problem() != nil {
			wait = kekAgain
		}
		next := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			next.Stop()
			return nil
		case <-next.C:
		}
	}
}

// look opens what it sealed the last time, then seals something and opens it.
func (w *kekWatch) look(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, kekTimeout)
	defer cancel()
	sealed, err := proveKEK(bounded, w.kek, w.before)
	if ctx.Err() != nil {
		return // stopping says nothing of the key
	}
	if err == nil {
		w.before = sealed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch was := w.err; {
	case err != nil && was == nil:
		w.since = w.now()
		w.log.Error("the key-encryption key in Vault can't be used: keys can't be rotated, nor this broker restarted", "error", err)
	case err == nil && was != nil:
		w.log.Info("the key-encryption key in Vault can be used again")
	}
	w.err = err
}

// proveKEK returns what it sealed. A Vault whose storage was rolled back opens
// what it seals now, and not what it sealed before.
func proveKEK(ctx context.Context, kek keys.KEK, before []byte) (sealed []byte, err error) {
	if before != nil {
		if _, err := kek.Open(ctx, before, []byte(kekPurpose)); err != nil {
			return nil, fmt.Errorf("what it sealed before does not open: %w", err)
		}
	}
	plain := make([]byte, 32)
	_, _ = rand.Read(plain) // never fails (crypto/rand, Go 1.24)
	if sealed, err = kek.Seal(ctx, plain, []byte(kekPurpose)); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	opened, err := kek.Open(ctx, sealed, []byte(kekPurpose))
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if !bytes.Equal(opened, plain) {
		return nil, errors.New("what it opens is not what it sealed")
	}
	return sealed, nil
}

// problem returns nil, or why the key can't be used and since when.
func (w *kekWatch) problem() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		return nil
	}
	return fmt.Errorf("since %s: %w", w.since.UTC().Format(time.RFC3339), w.err)
}

// check is what /readyz says: what is open already signs on.
func (w *kekWatch) check(context.Context) error {
	if err := w.problem(); err != nil {
		return api.Degraded(err)
	}
	return nil
}

// kek shows whether the key can be used.
func (m *metrics) kek(w *kekWatch) {
	if w != nil {
		m.gauge("tenantbroker_kek_usable", "1 while the key-encryption key in Vault seals and opens, else 0.", nil,
			func() float64 { return number(w.problem() == nil) })
	}
}
