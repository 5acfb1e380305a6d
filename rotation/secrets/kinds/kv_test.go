package kinds_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

func TestKV_FromBeginningToEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(map[string]any{"value": "by hand", "user": "orders"})
	w.declareKV(map[string]any{"length": 40, "alphabet": "hex"})
	w.ask(false)
	st := w.until("drain", draining(2)) // what was there is version 1
	now := w.read()
	value, _ := now.Data["value"].(string)
	if now.Version != 2 || len(value) != 40 || strings.Trim(value, "0123456789abcdef") != "" {
		t.Fatalf("version %d, a value of %d", now.Version, len(value))
	}
	if now.Data["user"] != "orders" || now.Data["tenantbroker_version"] != "2" || now.Data["tenantbroker_nonce"] != st.Attempt.Nonce {
		t.Error("the other fields are not as they were, or the broker's are missing")
	}
	// The old value can still be read, and what waits is there until the end.
	old, err := w.root.KV("secret").GetVersion(t.Context(), w.path(), 1)
	if err != nil || old.Data["value"] != "by hand" {
		t.Errorf("the old value during the overlap: %v", err)
	}
	w.ack(2)
	w.until("rotated", rotated(2))
	if _, err := w.root.KV("secret").GetVersion(t.Context(), w.path(), 1); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("the old value after it: %v", err)
	}
	if _, err := w.root.KV("secret").Metadata(t.Context(), w.path()+".next"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("what waited is still there: %v", err)
	}
	w.rotate(3)
	if next := w.read(); next.Data["value"] == value || next.Data["user"] != "orders" || next.Version != 3 {
		t.Errorf("after the next rotation: version %d", next.Version)
	}
	for _, v := range []string{value, "by hand"} {
		if strings.Contains(w.log.String(), v) {
			t.Error("a value is in the log")
		}
	}
}

// Every write of a rotation fails after it took effect, and before: it is found
// by looking, and written once.
func TestKV_WritesThatFail(t *testing.T) {
	for _, c := range []struct {
		name   string
		path   string
		effect bool
		cut    bool
		writes int
	}{
		{"staged, then 500", "secret/data/%s.next", true, false, 1},
		{"staged, then cut off", "secret/data/%s.next", true, true, 1},
		{"not staged, 500", "secret/data/%s.next", false, false, 2},
		{"published, then 500", "secret/data/%s", true, false, 1},
		{"published, then cut off", "secret/data/%s", true, true, 1},
		{"not published, 500", "secret/data/%s", false, false, 2},
		{"destroyed, then 500", "secret/destroy/%s", true, false, 1},
		{"not destroyed, 500", "secret/destroy/%s", false, false, 2},
		{"cleaned up, then 500", "secret/metadata/%s.next", true, false, 1},
		{"not cleaned up, 500", "secret/metadata/%s.next", false, false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.declareKV(nil)
			w.rotate(1)
			path := fmt.Sprintf(c.path, w.path())
			before := w.writes(path)
			fault := devvault.Fault{Times: 1, Effect: c.effect, Cut: c.cut}
			if !c.cut {
				fault.Status = http.StatusInternalServerError
			}
			w.breaks(path, fault)
			w.rotate(2)
			if n := w.writes(path) - before; n != c.writes {
				t.Errorf("%d writes, want %d", n, c.writes)
			}
			m, err := w.root.KV("secret").Metadata(t.Context(), w.path())
			w.must(err)
			if m.CurrentVersion != 2 || !m.Versions[1].Destroyed || m.Versions[2].Destroyed {
				t.Errorf("%+v", m.Versions)
			}
			if _, err := w.root.KV("secret").Metadata(t.Context(), w.path()+".next"); !errors.Is(err, vault.ErrNotFound) {
				t.Errorf("what waited is still there: %v", err)
			}
			if st := w.status(); !slices.ContainsFunc(st.Last.Journal, func(e secrets.Entry) bool {
				return e.What == secrets.FoundDone || e.What == secrets.FoundNot
			}) {
				t.Errorf("nobody looked: %+v", st.Last.Journal)
			}
		})
	}
}

// Somebody else writes between two rotations, and just before the broker does.
func TestKV_NeverOverwritesWhatAnotherWrote(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareKV(nil)
	w.rotate(1)
	n := w.write(map[string]any{"value": "by hand"})
	w.ask(false)
	st := w.until("adrift", func(st secrets.Status) bool { return st.Drift != "" && st.Asked == nil })
	if want := fmt.Sprintf("version %d of %s is not the broker's, which is 1", n, w.path()); st.Drift != want || st.Attempt != nil {
		t.Fatalf("%q, want %q", st.Drift, want)
	}
	if got := w.read(); got.Data["value"] != "by hand" {
		t.Fatal("overwritten")
	}
	// Forced, it begins with what is there.
	w.ask(true)
	w.until("drain", draining(3))
	w.ack(3)
	w.until("rotated", rotated(3))
	if m, err := w.root.KV("secret").Metadata(t.Context(), w.path()); err != nil || !m.Versions[n].Destroyed {
		t.Errorf("what the other wrote is not retired: %v", err)
	}

	// Before the broker looks, and after it has looked.
	w.at("kv/stage/write/after", func() { n = w.write(map[string]any{"value": "meanwhile"}) })
	w.ask(false)
	st = w.until("given up", gaveUp)
	if st.Drift == "" || w.read().Data["value"] != "meanwhile" {
		t.Errorf("overwritten, drift %q", st.Drift)
	}
	w.ask(true)
	w.until("drain", draining(5))
	w.ack(5)
	w.until("rotated", rotated(5))
	w.at("kv/promote/publish/before", func() { n = w.write(map[string]any{"value": "again by hand"}) })
	w.ask(false)
	st = w.until("given up", gaveUp)
	if st.Drift == "" || st.Version != 5 {
		t.Errorf("drift %q, version %d", st.Drift, st.Version)
	}
	if got := w.read(); got.Data["value"] != "again by hand" || got.Version != n {
		t.Error("overwritten")
	}
	if _, err := w.root.KV("secret").Metadata(t.Context(), w.path()+".next"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("what waited is still there: %v", err)
	}
}

// The broker's write took effect, the answer was lost, and somebody else wrote
// over it meanwhile.
func TestKV_WrittenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareKV(nil)
	w.rotate(1)
	w.breaks("secret/data/"+w.path(), devvault.Fault{Times: 1, Effect: true, Status: http.StatusInternalServerError})
	w.at("kv/promote/publish/after", func() { w.write(map[string]any{"value": "by hand"}) })
	w.ask(false)
	st := w.until("given up", gaveUp)
	if !strings.Contains(st.Drift, "was written over the broker's, which is 2") {
		t.Errorf("%q", st.Drift)
	}
	if got := w.read(); got.Data["value"] != "by hand" {
		t.Error("overwritten")
	}
}

// After promote a foreign write holds the rotation: nothing is destroyed until
// an operator has looked.
func TestKV_ForeignWriteDuringDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareKV(nil)
	w.rotate(1)
	w.ask(false)
	w.until("drain", draining(2))
	w.write(map[string]any{"value": "by hand"})
	w.ack(2)
	st := w.until("held", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Held })
	if m, err := w.root.KV("secret").Metadata(t.Context(), w.path()); err != nil || m.Versions[1].Destroyed {
		t.Errorf("destroyed beside a foreign write (%s): %v", st.Drift, err)
	}
	w.ask(true)
	w.until("rotated", rotated(2))
	m, err := w.root.KV("secret").Metadata(t.Context(), w.path())
	w.must(err)
	if !m.Versions[1].Destroyed || m.Versions[3].Destroyed {
		t.Errorf("%+v", m.Versions)
	}
}

func TestKV_Drift(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(*kindWorld)
		says string
	}{
		"deleted": {func(w *kindWorld) {
			_, err := parts.vault.Do(w.Context(), http.MethodDelete, "secret/data/"+w.path(), nil)
			w.must(err)
		}, "was deleted"},
		"destroyed": {func(w *kindWorld) { w.must(w.root.KV("secret").Destroy(w.Context(), w.path(), 1)) }, "was deleted"},
		"gone":      {func(w *kindWorld) { w.must(w.root.KV("secret").DeleteAll(w.Context(), w.path())) }, "nothing is at"},
		"made anew": {func(w *kindWorld) {
			w.must(w.root.KV("secret").DeleteAll(w.Context(), w.path()))
			w.write(map[string]any{"value": "as if"})
		}, "is another than the broker wrote"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.declareKV(nil)
			w.rotate(1)
			change.do(w)
			st := w.until("adrift", func(st secrets.Status) bool { w.pass(1e9); return st.Drift != "" })
			if !strings.Contains(st.Drift, change.says) {
				t.Errorf("%q doesn't say %q", st.Drift, change.says)
			}
			w.ask(true)
			w.until("drain", draining(3))
			w.ack(3)
			w.until("rotated", rotated(3))
			if got := w.read(); got.Data["tenantbroker_version"] != "3" {
				t.Errorf("%v", got)
			}
		})
	}
}

// What waits disappears before it is proven, or is changed.
func TestKV_StagedValueIsNotAsItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareKV(nil)
	w.rotate(1)
	value := w.read().Data["value"]
	for _, spoil := range []func(){
		func() { w.must(w.root.KV("secret").DeleteAll(t.Context(), w.path()+".next")) },
		func() {
			staged, err := w.root.KV("secret").Get(t.Context(), w.path()+".next")
			w.must(err)
			w.must(w.root.KV("secret").DeleteAll(t.Context(), w.path()+".next"))
			staged.Data["value"] = "short"
			_, err = w.root.KV("secret").Put(t.Context(), w.path()+".next", staged.Data, vault.NoCAS)
			w.must(err)
		},
	} {
		w.at("kv/stage/write/after", spoil)
		w.ask(false)
		before := w.status().Last
		w.until("given up", func(st secrets.Status) bool { w.pass(1e9); return gaveUp(st) && st.Last.Nonce != before.Nonce })
		if got := w.read(); got.Data["value"] != value {
			t.Fatal("what consumers have has changed")
		}
		version := w.status().Version + 1 // what consumers have is as it was, so nothing is adopted
		w.ask(true)
		w.until("drain", draining(version))
		w.ack(version)
		w.until("rotated", rotated(version))
		value = w.read().Data["value"]
	}
}

// The policy shrank: it is no outage, and the error says which path.
func TestKV_Forbidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareKV(nil)
	w.rotate(1)
	w.breaks("secret/data/"+w.path()+".next", devvault.Fault{Status: http.StatusForbidden, Body: `{"errors":["permission denied"]}`})
	w.ask(false)
	st := w.until("given up", func(st secrets.Status) bool { w.pass(1e9); return gaveUp(st) })
	if !strings.Contains(st.Last.Failed, "403") || !strings.Contains(st.Last.Failed, w.path()+".next") {
		t.Errorf("%q", st.Last.Failed)
	}
}
