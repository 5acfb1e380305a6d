package keys

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// liveTime bounds how long one call counts; the next one goes on.
const liveTime = time.Second

// liveCount counts live tokens by key. It remembers how far it has read the log,
// so that a call reads only what was written since the one before; and the
// tokens only by the minute in which they end.
type liveCount struct {
	mu    sync.Mutex
	at    uint64                      // position up to which the log was read
	byKey map[string]map[int64]uint64 // kid → minute → tokens that end in it
}

// Live returns, by key, how many tokens may be alive: an upper bound to the
// minute, as Impact's is. whole is false while the log was not read to its end:
// what was counted is then all there is to say.
func (m *Manager) Live(ctx context.Context) (tokens map[string]uint64, whole bool, err error) {
	s := m.current.Load()
	if s == nil {
		return nil, false, ErrNotReady
	}
	l := &m.live
	l.mu.Lock()
	defer l.mu.Unlock()
	now, started := m.now().UTC(), time.Now()
	oldest := now.Add(-max(s.ring.Life, m.rules.life) - m.rules.leeway)
	var end uint64
	err = m.store.View(ctx, func(r store.Reader) (err error) {
		if end, err = r.LogEnd(); err == nil {
			l.at, err = logStart(r, l.at, end, oldest)
		}
		return err
	})
	for first := true; err == nil && l.at < end && (first || time.Since(started) < liveTime); first = false {
		err = m.store.View(ctx, func(r store.Reader) error { return l.read(ctx, r, end) })
	}
	if err != nil {
		return nil, false, err
	}
	return l.sum(now), l.at >= end, nil
}

// read counts one chunk of the log.
func (l *liveCount) read(ctx context.Context, r store.Reader, end uint64) error {
	n := 0
	for e, err := range r.Log(l.at) {
		if err != nil {
			return err
		}
		if e.Position > end {
			break
		}
		if bytes.Contains(e.Raw, []byte(TokenIssued)) {
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return fmt.Errorf("%w: audit record at %d: %w", ErrCorrupt, e.Position, err)
			}
			l.add(record)
		}
		l.at = e.Position
		if n++; n == impactChunk {
			return ctx.Err()
		}
	}
	l.at = max(l.at, end)
	return ctx.Err()
}

func (l *liveCount) add(r audit.Record) {
	if r.Type != TokenIssued || r.KeyID == "" {
		return
	}
	if l.byKey == nil {
		l.byKey = make(map[string]map[int64]uint64)
	}
	minutes := l.byKey[r.KeyID]
	if minutes == nil {
		minutes = make(map[int64]uint64)
		l.byKey[r.KeyID] = minutes
	}
	minutes[minuteOf(r.Expires.Add(credential.MaxLeeway))]++
}

// sum adds up what has not ended, and forgets what has.
func (l *liveCount) sum(now time.Time) map[string]uint64 {
	tokens := make(map[string]uint64)
	for kid, minutes := range l.byKey {
		maps.DeleteFunc(minutes, func(minute int64, _ uint64) bool { return minute < minuteOf(now) })
		if len(minutes) == 0 {
			delete(l.byKey, kid)
			continue
		}
		for _, n := range minutes {
			tokens[kid] += n
		}
	}
	return tokens
}

func minuteOf(t time.Time) int64 { return t.Unix() / 60 }
