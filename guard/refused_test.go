package guard_test

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/tenantbroker/tenantbroker/guard"
)

var errStore = errors.New("the store refuses a row")

// What a store refused has a line and is counted as what Check denied, once where
// both did, and is answered the same.
func TestWhatAStoreRefusesIsACrossing(t *testing.T) {
	row := guard.Resource{Type: "row", ID: "orders"}
	for name, c := range map[string]struct {
		do      func(r *http.Request) error
		reasons []string
	}{
		"refused": {func(r *http.Request) error { return guard.Refused(r.Context(), row, errStore) }, []string{"refused_by_store"}},
		"refused twice": {func(r *http.Request) error {
			_ = guard.Refused(r.Context(), row, errStore)
			return guard.Refused(r.Context(), row, errStore)
		}, []string{"refused_by_store", "refused_by_store"}},
		"denied, and refused": {func(r *http.Request) error {
			_ = guard.Check(r.Context(), resource("globex", "7"))
			return guard.Refused(r.Context(), row, errStore)
		}, []string{"crossing"}},
		"denied, and refused twice": {func(r *http.Request) error {
			_ = guard.Check(r.Context(), resource("globex", "7"))
			_ = guard.Refused(r.Context(), row, errStore)
			return guard.Refused(r.Context(), row, errStore)
		}, []string{"crossing", "refused_by_store"}},
		"allowed, and refused": {func(r *http.Request) error {
			_ = guard.Check(r.Context(), guard.Resource{Type: "order"}) // which is none
			_ = guard.Check(r.Context(), resource("acme", "7"))
			return guard.Refused(r.Context(), row, errStore)
		}, []string{"resource_without_tenant", "same_tenant", "refused_by_store"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var answers [2]string
			for i, err := range []error{nil, guard.ErrNotFound} {
				res := w.get(guard.Route{}, func(rw http.ResponseWriter, r *http.Request) {
					r.Header.Set("X-Request-Id", "one")
					if err == nil {
						err = c.do(r)
						denied, is := errors.AsType[*guard.Denied](err)
						if !is || !denied.Decision.Crossing || denied.Decision.Resource != row || !errors.Is(err, guard.ErrCrossing) || !errors.Is(err, errStore) {
							t.Errorf("it is %+v", err)
						}
					}
					guard.Refuse(rw, r, err)
				}, func(r *http.Request) { bearer(w.Token("acme"))(r); r.Header.Set("X-Request-Id", "one") })
				body, _ := io.ReadAll(res.Body)
				answers[i] = res.Status + string(body)
			}
			if answers[0] != answers[1] {
				t.Errorf("answered %s, and what nobody has %s", answers[0], answers[1])
			}
			var reasons []string
			crossings := uint64(0)
			for _, d := range w.seen {
				reasons = append(reasons, d.Reason)
				if d.Crossing {
					crossings++
				}
			}
			if !slices.Equal(reasons, c.reasons) || len(w.lines()) != len(c.reasons) || w.guard.Stats().Crossings != crossings {
				t.Errorf("decisions %q, want %q; counted %+v", reasons, c.reasons, w.guard.Stats())
			}
		})
	}
}

func TestWhatAStoreRefusesWithoutATokenIsADenial(t *testing.T) {
	w := newWorld(t)
	before := w.guard.Stats().WithoutToken
	err := guard.Refused(t.Context(), guard.Resource{Type: "row"}, errStore)
	if !errors.Is(err, guard.ErrNoToken) || !errors.Is(err, errStore) || w.guard.Stats().WithoutToken != before+1 {
		t.Errorf("%v, %d checks without a token", err, w.guard.Stats().WithoutToken-before)
	}
}
