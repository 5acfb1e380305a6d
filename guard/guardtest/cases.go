package guardtest

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/tenantbroker/tenantbroker/internal/unknown"
)

// requestIDs differ between two answers that are otherwise the same.
var requestIDs = regexp.MustCompile(`"request_id":"[^"]*"`)

// route tries all cases of one route.
func (f *finder) route(r Route) {
	f.t.Helper()
	theirs := f.object(f.A)
	known := len(f.found)
	before := f.ask(f.Read, &f.A, []object{theirs})
	if !before.ok() || !before.shows(theirs) {
		f.leak(f.Read, "own", "A is not shown its own object: %d %s", before.status, before.body)
		return
	}
	for i, try := range f.attempts() {
		if i == plain && len(f.found) > known {
			break // who needn't say to be A gains nothing by it
		}
		got := f.ask(r, try.as, f.about(r, try.as, theirs), try.change)
		f.judge(r, try, theirs, got)
	}
	if after := f.ask(f.Read, &f.A, []object{theirs}); after.status != before.status || after.body != before.body {
		f.leak(r, "changed by another", "A's object was %q and is %q", before.body, after.body)
		return
	}
	if r.Kind == Reads || r.Kind == Lists {
		f.cached(r, theirs)
	}
	if r.Kind == Reads || r.Kind == Creates || r.searches() {
		f.told(r, theirs)
	}
	f.own(r, theirs)
}

// plain is how many of the attempts say nothing of a tenant; they come first.
const plain = 2

// attempt is a way to ask for what is A's.
type attempt struct {
	name   string
	as     *Party
	change func(*http.Request)
}

// attempts are all ways: as B, as nobody, and as B who says to be A in every place
// where a request can say so.
func (f *finder) attempts() []attempt {
	all := []attempt{
		{"another tenant", &f.B, func(*http.Request) {}},
		{"without a token", nil, func(*http.Request) {}},
	}
	for _, name := range f.TenantNames {
		all = append(all,
			attempt{"header " + name, &f.B, func(r *http.Request) { r.Header.Set(name, f.A.Tenant) }},
			attempt{"parameter " + name, &f.B, func(r *http.Request) {
				q := r.URL.Query()
				q.Set(name, f.A.Tenant)
				r.URL.RawQuery = q.Encode()
			}},
			attempt{"member " + name, &f.B, func(r *http.Request) { member(r, name, f.A.Tenant) }})
	}
	return all
}

// member adds to a JSON body, if there is one.
func member(r *http.Request, name, value string) {
	body, err := io.ReadAll(r.Body)
	var object map[string]any
	if err == nil && json.Unmarshal(body, &object) == nil {
		object[name] = value
		body, err = json.Marshal(object)
	}
	if err != nil {
		return
	}
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(body))), int64(len(body))
}

// about is what a request names: A's object, in a batch after one of the caller's.
func (f *finder) about(r Route, as *Party, theirs object) []object {
	if r.Kind == Batches && as != nil && as.Tenant != theirs.party.Tenant {
		return []object{f.object(*as), theirs}
	}
	return []object{theirs}
}

// judge looks whether an answer gives A's object away.
func (f *finder) judge(r Route, try attempt, theirs object, got answer) {
	switch {
	// A route that sends the marker itself, as a search does, may see it again.
	case got.shows(theirs) && !strings.Contains(r.Path+r.Body, "{marker}"):
		f.leak(r, try.name, "A's object is shown: %d %s", got.status, got.body)
	case got.shows(theirs) && strings.Contains(got.body, theirs.id) && got.ok():
		f.leak(r, try.name, "A's object is found: %d %s", got.status, got.body)
	case try.as == nil && got.ok():
		f.leak(r, try.name, "it answers %d", got.status)
	case (r.Kind == Changes || r.Kind == Removes) && got.ok():
		f.leak(r, try.name, "it answers %d, as if it had been done", got.status)
	}
}

// cached has A read first, and B right after it, also with what A was told of the
// answer's version.
func (f *finder) cached(r Route, theirs object) {
	first := f.ask(r, &f.A, []object{theirs})
	if got := f.ask(r, &f.B, []object{theirs}); got.shows(theirs) {
		f.leak(r, "read after its owner", "A's answer is given to B: %d", got.status)
	}
	control := strings.ToLower(strings.Join(first.header.Values("Cache-Control"), ","))
	if (!strings.Contains(control, "private") && !strings.Contains(control, "no-store")) || strings.Contains(control, "public") {
		f.leak(r, "kept by a shared cache", "Cache-Control: %q", control)
	}
	for ask, told := range map[string]string{"If-None-Match": "Etag", "If-Modified-Since": "Last-Modified"} {
		value := first.header.Get(told)
		if value == "" {
			continue
		}
		got := f.ask(r, &f.B, []object{theirs}, func(q *http.Request) { q.Header.Set(ask, value) })
		if got.status == http.StatusNotModified {
			f.leak(r, "asked by "+ask, "B is answered %d", got.status)
		}
	}
}

// searches reports whether the route is asked by what an object holds.
func (r Route) searches() bool { return strings.Contains(r.Path+r.Body, "{marker}") && r.Kind == Lists }

// told compares A's object, as B is answered, with one that nobody has. A number
// of results tells as much as an id.
func (f *finder) told(r Route, theirs object) {
	nobodys, either := object{id: unknown.ID(theirs.id), marker: newMarker()}, object{id: unknown.ID(theirs.id), marker: newMarker()}
	there, nowhere := f.ask(r, &f.B, []object{theirs}), f.ask(r, &f.B, []object{nobodys})
	if there.status != nowhere.status {
		f.leak(r, "an id that exists", "B is answered %d %s for A's object, %d %s for none", there.status, there.body, nowhere.status, nowhere.body)
		return
	}
	if r.Kind == Creates {
		return // what was made has a text of its own
	}
	said, unsaid, varies := there.said(theirs), nowhere.said(nobodys), f.ask(r, &f.B, []object{either}).said(either)
	parts := slices.Sorted(maps.Keys(said))
	for part := range unsaid {
		if _, both := said[part]; !both {
			parts = append(parts, part)
		}
	}
	for _, part := range parts {
		if said[part] != unsaid[part] && varies[part] == unsaid[part] {
			f.leak(r, "an id that exists", "%s is %q for A's object, %q for none", part, said[part], unsaid[part])
		}
	}
}

// said is what an answer says, by part, whatever object it is about.
func (a answer) said(about object) map[string]string {
	plain := strings.NewReplacer(about.id, "ID", about.marker, "MARKER")
	parts := map[string]string{"the body": requestIDs.ReplaceAllString(plain.Replace(a.body), "")}
	for name, values := range a.header {
		parts[name] = plain.Replace(strings.Join(values, ", "))
	}
	return parts
}

// own proves that a route works for whom it is for, at last.
func (f *finder) own(r Route, theirs object) {
	got := f.ask(r, &f.A, []object{theirs})
	if r.Kind == Creates && got.status == http.StatusConflict {
		return // A's own is there already
	}
	if !got.ok() || (r.Kind != Changes && r.Kind != Creates && r.Kind != Removes && !got.shows(theirs)) {
		f.leak(r, "own", "it doesn't work for A itself, so it proves nothing: %d %s", got.status, got.body)
	}
}

// atOnce has both parties read their own at the same time, again and again: what
// is shared between requests shows one the other's.
func (f *finder) atOnce() {
	objects := []object{f.object(f.A), f.object(f.B)}
	var (
		readers sync.WaitGroup
		mu      sync.Mutex
		crossed string
	)
	for reader := range 8 {
		own, other := objects[reader%2], objects[1-reader%2]
		readers.Go(func() {
			for range 50 {
				got := f.ask(f.Read, &own.party, []object{own})
				if got.shows(other) || !got.shows(own) {
					mu.Lock()
					crossed = got.body
					mu.Unlock()
				}
			}
		})
	}
	readers.Wait()
	if crossed != "" {
		f.leak(f.Read, "at once", "one is shown the other's: %s", crossed)
	}
}
