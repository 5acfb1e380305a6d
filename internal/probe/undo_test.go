package probe_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// jobs lets everybody make a job about any order, also without a token, and
// remove what he made; what nobody made, B may remove.
type jobs struct {
	w        *world
	mu       sync.Mutex
	made     map[string]string // id: whose token
	mute     bool              // says nothing of the job it made
	keeps    bool              // refuses to remove
	slowPoll bool
	n        int
}

func (j *jobs) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		id, isJob := strings.CutPrefix(r.URL.Path, "/jobs")
		if !isJob {
			next.ServeHTTP(rw, r)
			return
		}
		if j.slowPoll && r.Method == http.MethodGet {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Minute):
			}
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		by := r.Header.Get("Authorization")
		owner, there := j.made[id]
		switch {
		case r.Method == http.MethodPost:
			j.n++
			id = fmt.Sprintf("/job_%d", j.n)
			if r.Header.Get("X-Tenant") != "" {
				by = "Bearer " + j.w.a // believes it
			}
			j.made[id] = by
			rw.WriteHeader(http.StatusAccepted)
			if !j.mute {
				_ = json.NewEncoder(rw).Encode(map[string]string{"id": id[1:]})
			}
		case !there || owner != by && (owner != "" || by != "Bearer "+j.w.b):
			rw.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodDelete && j.keeps:
			rw.WriteHeader(http.StatusConflict)
		case r.Method == http.MethodDelete:
			delete(j.made, id)
		}
	})
}

func (j *jobs) left() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.made)
}

// What an attempt makes is removed, whoever made it and for whichever id; what
// can't be is named, once each.
func TestWhatAttemptsMakeIsRemovedOrNamed(t *testing.T) {
	w := newWorld(t)
	attempt := probe.Attempt{
		Name: "job", Step: probe.Step{Request: "POST /jobs?order={id}", Body: map[string]any{"order": "{id}"}, Save: map[string]string{"job": "/id"}},
		Cleanup: []probe.Step{{Request: "DELETE /jobs/{job}"}},
	}
	for name, k := range map[string]struct {
		is      *jobs
		then    bool
		removed bool
		named   string
	}{
		"removed":                   {&jobs{}, false, true, ""},
		"refused":                   {&jobs{keeps: true}, false, false, "409"},
		"not said which":            {&jobs{mute: true}, false, false, "no answer said what would remove it"},
		"a later step has no reply": {&jobs{slowPoll: true}, true, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k.is.w, k.is.made = w, map[string]string{}
			d := only(describe(t, w.serve(t, k.is.wrap)), "read")
			a := attempt
			if k.then {
				a.Then = []probe.Step{{Request: "GET /jobs/{job}"}}
				d.Limits.Timeout = 2 * time.Second
			}
			d.Objects[0].Try = []probe.Attempt{a}
			report := w.probe(t, d)
			if k.is.n == 0 || (k.is.left() == 0) != k.removed || k.is.left() != len(report.Left) {
				t.Errorf("%d made, %d left, named: %s", k.is.n, k.is.left(), strings.Join(report.Left, "\n"))
			}
			for _, left := range report.Left {
				if !strings.Contains(left, k.named) || !strings.Contains(left, "order job: DELETE /jobs/{job}: made by ") {
					t.Error(left)
				}
			}
		})
	}
}

// What is made without a word of its id can't be removed, and is named.
func TestAnObjectWithoutAnIDIsNamed(t *testing.T) {
	w := newWorld(t)
	for name, pointer := range map[string]string{"no such member": "/nothing", "no Location": ""} {
		base := w.serve(t, nil)
		d := only(describe(t, base), "read")
		d.Objects[0].Create.ID = pointer
		report := w.probe(t, d)
		if len(report.Left) != 1 || !strings.Contains(report.Left[0], "order of globex: POST /orders: status 201, and no id") || items(t, base, w.b) != 1 {
			t.Errorf("%s: %v", name, report.Left)
		}
	}
}

// A request that got no answer may have had its effect; one that never arrived not.
func TestAnObjectThatMayBeThereIsNamed(t *testing.T) {
	w := newWorld(t)
	late := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(rw, r)
			panic(http.ErrAbortHandler)
		})
	}
	for base, want := range map[string]int{w.serve(t, late): 1, "http://127.0.0.1:1": 0} {
		report, err := probe.Run(t.Context(), probe.Config{Description: only(describe(t, base), "read"), TokenA: w.sourceA, TokenB: w.sourceB})
		if err == nil || len(report.Left) != want || want > 0 && !strings.Contains(report.Left[0], "it may be there") {
			t.Errorf("%v, left %v", err, report.Left)
		}
	}
}

// What could not be removed when the requests were spent is removed in the end.
func TestWhatIsMadeLastIsRemovedToo(t *testing.T) {
	w := newWorld(t)
	j := &jobs{w: w, made: map[string]string{}}
	d := only(describe(t, w.serve(t, j.wrap)), "read")
	d.Objects[0].Try = []probe.Attempt{{
		Name: "job", Step: probe.Step{Request: "POST /jobs", Save: map[string]string{"job": "/id"}}, Cleanup: []probe.Step{{Request: "DELETE /jobs/{job}"}},
	}}
	for spent := 7; spent < 14; spent++ {
		d.Limits.Requests = spent
		if report := w.probe(t, d); j.left() > 0 || len(report.Left) > 0 {
			t.Errorf("%d requests: %d left, named %v", spent, j.left(), slices.Clone(report.Left))
		}
	}
}
