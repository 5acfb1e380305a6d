package broker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// faultyKEK keeps what it seals in the clear, and fails as it is told.
type faultyKEK struct {
	seal, open error
	other      bool   // opens something else
	lost       []byte // does not open this any more
}

func (k *faultyKEK) Seal(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	return append(bytes.Clone(aad), plaintext...), k.seal
}

func (k *faultyKEK) Open(_ context.Context, sealed, aad []byte) ([]byte, error) {
	if k.lost != nil && bytes.Equal(sealed, k.lost) {
		return nil, errors.New("version is too new")
	}
	plain := bytes.Clone(bytes.TrimPrefix(sealed, aad))
	if k.other {
		plain[0]++
	}
	return plain, k.open
}

func TestAKeyEncryptionKeyThatStopsWorkingShows(t *testing.T) {
	kek, clock := new(faultyKEK), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var log bytes.Buffer
	w := &kekWatch{kek: kek, now: func() time.Time { return clock }, log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := w.problem(); err != nil {
		t.Errorf("before anybody looked: %v", err)
	}
	for name, c := range map[string]struct {
		kek  faultyKEK
		says string
	}{
		"it refuses to seal": {faultyKEK{seal: errors.New("permission denied")}, "seal: permission denied"},
		"it refuses to open": {faultyKEK{open: errors.New("permission denied")}, "open: permission denied"},
		"it is another key":  {faultyKEK{other: true}, "not what it sealed"},
	} {
		*kek = c.kek
		w.look(t.Context())
		clock = clock.Add(time.Hour)
		w.look(t.Context()) // since when it is so doesn't move
		err := w.check(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "since "+clock.Add(-time.Hour).Format(time.RFC3339)) {
			t.Errorf("%s: %v", name, err)
		}
		*kek = faultyKEK{}
		w.look(t.Context())
		if err := w.check(t.Context()); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	if n := strings.Count(log.String(), "can't be used"); n != 3 {
		t.Errorf("%d lines for three problems:\n%s", n, log.String())
	}
	kek.seal = context.Canceled
	stopping, cancel := context.WithCancel(t.Context())
	cancel()
	w.look(stopping)
	if err := w.problem(); err != nil {
		t.Errorf("a broker that stops says: %v", err)
	}
}

// Vault's storage was rolled back: what it seals now it opens, and not what the
// store holds. That is no less said when it is asked again.
func TestAKeyEncryptionKeyThatLostAVersionShows(t *testing.T) {
	kek := new(faultyKEK)
	w := &kekWatch{kek: kek, now: time.Now, log: slog.New(slog.DiscardHandler)}
	w.look(t.Context())
	kek.lost = w.before
	for range 3 {
		w.look(t.Context())
		if err := w.check(t.Context()); err == nil || !strings.Contains(err.Error(), "sealed before") {
			t.Errorf("%v", err)
		}
	}
	kek.lost = nil
	w.look(t.Context())
	if err := w.check(t.Context()); err != nil {
		t.Errorf("it is back: %v", err)
	}
}
