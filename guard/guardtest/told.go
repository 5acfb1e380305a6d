package guardtest

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/internal/unknown"
)

// requestIDs differ between two answers that are otherwise the same.
var requestIDs = regexp.MustCompile(`"request_id":"[^"]*"`)

// told compares A's object, as B is answered, with one that nobody has. A number
// of results tells as much as an id. Of what writes, the status is looked at only.
func (f *finder) told(r Route) {
	for _, in := range f.places(r) {
		theirs := f.object(f.A)
		nobodys, either := nobodys(theirs), nobodys(theirs)
		there, nowhere := f.askIn(in, r, &f.B, []object{theirs}), f.askIn(in, r, &f.B, []object{nobodys})
		if there.status != nowhere.status {
			f.leak(r, "an id that exists", "B is answered %d %s for A's object, %d %s for none", there.status, there.body, nowhere.status, nowhere.body)
			return
		}
		if r.writes() {
			continue // what was made has a text of its own
		}
		unsaid := [2]parts{nowhere.said(nobodys), f.askIn(in, r, &f.B, []object{either}).said(either)}
		f.same(r, [2]parts{there.said(theirs), f.askIn(in, r, &f.B, []object{theirs}).said(theirs)}, unsaid)
	}
}

// nobodys is an object that is not there.
func nobodys(like object) object { return object{id: unknown.ID(like.id), marker: newMarker()} }

// same compares what is said of A's object, twice, and of two that nobody has, in all
// that stays the same: a time or a trace's id does not hide the words around it.
func (f *finder) same(r Route, said, unsaid [2]parts) {
	all := slices.Sorted(maps.Keys(said[0]))
	for part := range unsaid[0] {
		if _, both := said[0][part]; !both {
			all = append(all, part)
		}
	}
	for _, part := range all {
		if differ([2]string{said[0][part], said[1][part]}, [2]string{unsaid[0][part], unsaid[1][part]}) {
			f.leak(r, "an id that exists", "%s is %q for A's object, %q for none", part, said[0][part], unsaid[0][part])
		}
	}
}

// word is a word, or what is between two.
var word = regexp.MustCompile(`[0-9A-Za-z_:.+-]+|[^0-9A-Za-z_:.+-]+`)

// differ reports whether two pairs of texts differ in a word, or in how many there
// are, in which neither pair differs by itself.
func differ(one, other [2]string) bool {
	var a, b [2][]string
	for i := range 2 {
		a[i], b[i] = word.FindAllString(one[i], -1), word.FindAllString(other[i], -1)
	}
	if len(a[0]) != len(a[1]) || len(b[0]) != len(b[1]) {
		return false // how long it is varies
	}
	if len(a[0]) != len(b[0]) {
		return true
	}
	for i := range a[0] {
		if a[0][i] == a[1][i] && b[0][i] == b[1][i] && a[0][i] != b[0][i] {
			return true
		}
	}
	return false
}

// parts are what an answer says, by its parts.
type parts map[string]string

// said is what an answer says, by part, whatever object it is about.
func (a answer) said(about object) parts {
	plain := strings.NewReplacer(about.id, "ID", about.marker, "MARKER")
	said := parts{"the body": requestIDs.ReplaceAllString(plain.Replace(a.body), "")}
	for name, values := range a.header {
		said[name] = plain.Replace(strings.Join(values, ", "))
	}
	return said
}
