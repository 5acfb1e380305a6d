package kinds_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// A backup may be of the moment at which a step was not begun, such as while
// Vault was away, and be restored when the world has gone on without it. For
// every kind and every step: what consumers are given works all the time,
// whether the operator has the rotation go on or gives it up, and forces what the
// status holds back; and the next rotation ends well.
func TestRestoredFromBeforeAStep(t *testing.T) {
	if parts.once.Do(startParts); parts.err != nil {
		t.Fatal(parts.err)
	}
	for name, c := range crashTable {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steps := slices.DeleteFunc(c.kind(nil, nil).Steps(), func(s secrets.Step) bool { return s == secrets.Drain })
			for i, step := range steps {
				unseen := i <= slices.Index(steps, secrets.Promote) // nobody had the new value
				t.Run(string(step), func(t *testing.T) { restoredBefore(t, c, step, unseen) })
			}
		})
	}
}

func restoredBefore(t *testing.T, c crashing, step secrets.Step, unseen bool) {
	for since, goOn := range worldsSince {
		if since == changeOver && !unseen {
			continue
		}
		t.Run(since, func(t *testing.T) { restored(t, c, step, goOn, false) })
		if unseen {
			t.Run(since+", and it is given up", func(t *testing.T) { restored(t, c, step, goOn, true) })
		}
	}
}

const changeOver = "consumers change over" // some have the former value, some the new one

// worldsSince is what became of the second rotation since the backup.
var worldsSince = map[string]func(w *restoredWorld){
	changeOver:     func(w *restoredWorld) { w.rest() },
	"it has ended": func(w *restoredWorld) { w.toVersion(2) },
	"one more has ended": func(w *restoredWorld) {
		w.toVersion(2)
		w.process(func(m *secrets.Manager, _ *registry.Registry) { w.must(m.Rotate(w.Context(), admin, w.name, 0, false)) })
		w.toVersion(3)
	},
}

// restoredWorld is a world whose store can be put back to before a step.
type restoredWorld struct {
	*crashWorld
	step   secrets.Step
	backup string // the file; written at the first Prepare of the step
	has    []any  // what works, and processes of the consumer may have
}

func restored(t *testing.T, c crashing, step secrets.Step, goOn func(*restoredWorld), giveUp bool) {
	world, old := furnished(t, c)
	w := &restoredWorld{crashWorld: world, step: step, backup: filepath.Join(t.TempDir(), "backup")}
	goOn(w)
	now, _ := c.given(w.crashWorld)
	has := []any{now}
	if w.status().Attempt != nil {
		has = append(has, old)
	}
	w.path = w.backup
	// What the restored store itself doesn't know any more, such as a client
	// secret, nothing can help.
	for _, value := range has {
		if c.valid(w.crashWorld, value) {
			w.has = append(w.has, value)
		}
	}
	if giveUp {
		w.process(func(m *secrets.Manager, _ *registry.Registry) { w.must(m.Abort(t.Context(), admin, w.name, 0)) })
	}
	w.operate()
}

// operate does what the guides tell operators, until a rotation has ended well:
// to wait for consumers, and to force what the broker holds back.
func (w *restoredWorld) operate() {
	for asked := false; ; {
		st := w.rest()
		for i, value := range w.has {
			if !w.valid(w.crashWorld, value) {
				w.Fatalf("what consumers have (%d of %d) ended: %+v, drift %q", i+1, len(w.has), st.Attempt, st.Drift)
			}
		}
		adrift := st.Drift != ""
		switch {
		case st.Attempt != nil && st.Attempt.Step == secrets.Drain:
			now, version := w.given(w.crashWorld)
			if !w.valid(w.crashWorld, now) {
				w.Fatalf("what consumers are given as version %d doesn't work", version)
			}
			w.has = []any{now}
			w.acknowledged(st.Attempt.New.Version)
			continue
		case st.Attempt == nil && !adrift && asked && st.Last.Failed == "":
			return
		case st.Attempt == nil && adrift: // nothing is forced before all have what is given
			if now, _ := w.given(w.crashWorld); w.valid(w.crashWorld, now) {
				w.has = []any{now}
			}
		}
		asked = asked || st.Attempt == nil
		w.process(func(m *secrets.Manager, _ *registry.Registry) {
			w.must(m.Rotate(w.Context(), admin, w.name, 0, adrift))
		})
	}
}

func (w *restoredWorld) status() (st secrets.Status) {
	w.process(func(m *secrets.Manager, _ *registry.Registry) {
		var err error
		st, err = m.Get(w.Context(), admin, w.name)
		w.must(err)
	})
	return st
}

// rest runs the broker until it waits for a consumer or an operator.
func (w *restoredWorld) rest() secrets.Status {
	return w.until(func(st secrets.Status) bool {
		a := st.Attempt
		return a == nil && st.Asked == nil || a != nil && (a.Step == secrets.Drain || held(st))
	}, 0)
}

// acknowledged has the consumer say that it has a version, and runs the broker
// on to where it waits for an operator.
func (w *restoredWorld) acknowledged(version uint64) secrets.Status {
	return w.until(func(st secrets.Status) bool { return st.Attempt == nil || held(st) }, version)
}

func held(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Held && !st.Attempt.Forced }

func (w *restoredWorld) toVersion(version uint64) {
	w.until(func(st secrets.Status) bool {
		return st.Attempt != nil && st.Attempt.Step == secrets.Drain && st.Attempt.New.Version == version
	}, 0)
	if st := w.acknowledged(version); st.Version != version || st.Last.Failed != "" {
		w.Fatalf("not rotated to %d: %+v", version, st)
	}
}

// until runs the broker until its status is as wanted. ack is what the consumer
// acknowledges; 0: nothing.
func (w *restoredWorld) until(ok func(secrets.Status) bool, ack uint64) (st secrets.Status) {
	w.Helper()
	db, err := bolt.Open(w.Context(), bolt.Options{Path: w.path, Writer: "test"})
	w.must(err)
	defer func() { w.must(db.Close()) }()
	reg := registry.New(db, credential.MustIssuerURL("https://broker.example"), time.Now)
	m, err := secrets.New(secrets.Config{
		Store: db, Registry: reg, Broker: "one", Now: time.Now, Interval: 10 * time.Millisecond,
		Kinds: []secrets.Kind{copying{w.kind(w.client, reg), w, db}},
	})
	w.must(err)
	if ack > 0 {
		_, err := m.Ack(w.Context(), secrets.Consumer{Account: credential.MustAccountID("app"), Tenant: credential.System}, w.name, ack)
		w.must(err)
	}
	running, cancel := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(running) }()
	defer func() {
		cancel()
		w.must(<-ended)
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		st, err = m.Get(w.Context(), admin, w.name)
		w.must(err)
		if ok(st) {
			return st
		}
		if time.Now().After(end) {
			w.Fatalf("stuck: %+v, drift %q, problem %q", st.Attempt, st.Drift, st.Problem)
		}
	}
}

// copying is a kind that takes a backup before a step has its intent.
type copying struct {
	secrets.Kind
	w  *restoredWorld
	db *bolt.Store
}

func (k copying) Prepare(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	if w.Step == k.w.step {
		f, err := os.OpenFile(k.w.backup, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			err = errors.Join(k.db.Snapshot(ctx, f), f.Close())
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	return k.Kind.Prepare(ctx, w)
}
