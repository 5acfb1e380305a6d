package guardtest

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// route tries all cases of one route.
func (f *finder) route(r Route) {
	f.t.Helper()
	theirs := f.object(f.A)
	known := len(f.found)
	for _, try := range f.attempts(r) {
		if try.claims && len(f.found) > known {
			break // who needn't say to be A gains nothing by it
		}
		if r.Kind == Creates {
			theirs = f.object(f.A) // of the former one there may be one of B's own now
		}
		if !f.attempt(r, try, theirs) {
			return
		}
	}
	if !r.writes() {
		f.cached(r, theirs)
	}
	if r.Kind == Reads || !r.writes() && r.has("{id}") {
		f.ownAfter(r, theirs)
	}
	if r.Kind == Reads || r.has("{id}") || r.has("{marker}") && (r.Kind == Lists || r.Kind == Creates) {
		f.told(r)
	}
	f.own(r, theirs)
}

// has reports whether the route has a place for something.
func (r Route) has(place string) bool { return strings.Contains(r.Path+r.Body, place) }

// writes reports whether a route makes, changes or removes something.
func (r Route) writes() bool { return r.Kind == Changes || r.Kind == Removes || r.Kind == Creates }

// many reports whether a route is for several objects that are named.
func (r Route) many() bool {
	return r.Kind == Batches || (r.Kind == Changes || r.Kind == Removes) && r.has("[{id}]")
}

// attempt is a way to ask for what is A's.
type attempt struct {
	name   string
	as     *Party // nil: without a token
	in     string // the tenant in the route's place for one
	claims bool   // to be A
	change func(*http.Request)
}

// attempts are all ways: as B, as nobody, and as B who says to be A in every place
// where a request can say so. Those that claim nothing come first.
func (f *finder) attempts(r Route) []attempt {
	nothing := func(*http.Request) {}
	all := []attempt{
		{"another tenant", &f.B, f.B.Tenant, false, nothing},
		{"without a token", nil, f.A.Tenant, false, nothing},
	}
	if r.has("{tenant}") {
		all = append(all, attempt{"another tenant in its place", &f.B, f.A.Tenant, false, nothing})
	}
	for _, name := range f.TenantNames {
		for _, in := range f.places(r) {
			all = append(all,
				attempt{"header " + name, &f.B, in, true, func(r *http.Request) { r.Header.Set(name, f.A.Tenant) }},
				attempt{"parameter " + name, &f.B, in, true, func(r *http.Request) {
					q := r.URL.Query()
					q.Set(name, f.A.Tenant)
					r.URL.RawQuery = q.Encode()
				}},
				attempt{"member " + name, &f.B, in, true, func(r *http.Request) { member(r, name, f.A.Tenant) }})
		}
	}
	return all
}

// attempt tries one way, and looks what it did to A. False: it makes no sense to
// go on.
func (f *finder) attempt(r Route, try attempt, theirs object) bool {
	before := f.ask(f.Read, &f.A, []object{theirs})
	if !before.ok() || !before.shows(theirs) {
		f.leak(f.Read, "own", "A is not shown its own object: %d %s", before.status, before.body)
		return false
	}
	about := f.about(r, try.as, theirs)
	f.judge(r, try, theirs, f.askIn(try.in, r, try.as, about, try.change))
	if after := f.ask(f.Read, &f.A, []object{theirs}); after.status != before.status || after.body != before.body {
		f.leak(r, "changed by another", "%s: A's object was %q and is %q", try.name, before.body, after.body)
		return false
	}
	switch {
	case r.Kind == Creates:
		f.planted(r, try, about[0])
	case r.Kind == Changes && r.has("{id}") && !r.many() && try.as != nil:
		f.moved(r, try)
	}
	return true
}

// moved has B change what is its own in the same way, which may make it A's.
func (f *finder) moved(r Route, try attempt) {
	own := f.object(f.B)
	changed := object{own.party, own.id, newMarker()}
	f.askIn(try.in, r, &f.B, []object{changed}, try.change)
	f.planted(r, try, changed, own)
}

// planted looks whether what B has made or changed, known by one of its markers, is
// A's now.
func (f *finder) planted(r Route, try attempt, made ...object) {
	for _, show := range append([]Route{f.Read}, f.Routes...) {
		lists := show.Kind == Lists && !show.has("{marker}")
		if show.Name != f.Read.Name && !lists || !slices.ContainsFunc(made, f.ask(show, &f.A, made[:1]).shows) {
			continue
		}
		// Of a route that shows A whatever is B's it tells nothing.
		if other := f.object(f.B); !f.ask(show, &f.A, []object{other}).shows(other) {
			f.leak(r, try.name, "what B made is in A's %s", show.Name)
		}
	}
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

// about is what a request names: A's object, in a batch between two of the caller's,
// since some look at the first only and some forget all but the last. What is
// written to it is nothing that is there already.
func (f *finder) about(r Route, as *Party, theirs object) []object {
	switch {
	case r.many() && as != nil:
		return []object{f.object(*as), theirs, f.object(*as)}
	case r.Kind == Changes || r.Kind == Creates:
		return []object{{theirs.party, theirs.id, newMarker()}}
	}
	return []object{theirs}
}

// gives reports whether an answer gives an object away. A route that sends the
// marker itself, as a search does, may see it again.
func (r Route) gives(o object, got answer) bool {
	return got.shows(o) && (!r.has("{marker}") || got.ok() && strings.Contains(got.body, o.id))
}

// judge looks whether an answer gives A's object away.
func (f *finder) judge(r Route, try attempt, theirs object, got answer) {
	switch {
	case r.gives(theirs, got):
		f.leak(r, try.name, "A's object is shown: %d %s", got.status, got.body)
	case try.as == nil && got.ok():
		f.leak(r, try.name, "it answers %d", got.status)
	case (r.Kind == Changes || r.Kind == Removes) && !r.many() && got.ok(): // for several, B's own are done
		// A change of the caller's rows answers the same where there are none.
		if none := f.askIn(try.in, r, try.as, []object{nobodys(theirs)}, try.change); !none.ok() {
			f.leak(r, try.name, "it answers %d, as if it had been done, and %d for an object that nobody has", got.status, none.status)
		}
	}
}

// places are the tenants that B may name where the route has a place for one.
func (f *finder) places(r Route) []string {
	if r.has("{tenant}") {
		return []string{f.B.Tenant, f.A.Tenant}
	}
	return []string{f.B.Tenant}
}

// own proves that a route works for whom it is for, at last.
func (f *finder) own(r Route, theirs object) {
	got := f.ask(r, &f.A, []object{theirs})
	if r.Kind == Creates && got.status == http.StatusConflict {
		return // A's own is there already
	}
	switch {
	case !got.ok() || !r.writes() && !got.shows(theirs):
		f.leak(r, "own", "it doesn't work for A itself, so it proves nothing: %d %s", got.status, got.body)
	case !r.writes() && r.has("{marker}"):
		// What is looked for may come back though nothing is found.
		none := nobodys(theirs)
		if maps.Equal(got.said(theirs), f.ask(r, &f.A, []object{none}).said(none)) {
			f.leak(r, "own", "it finds nothing for A itself, so it proves nothing: %d %s", got.status, got.body)
		}
	}
}
