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
		f.same(r, there.said(theirs), nowhere.said(nobodys), f.askIn(in, r, &f.B, []object{either}).said(either))
	}
}

// nobodys is an object that is not there.
func nobodys(like object) object { return object{id: unknown.ID(like.id), marker: newMarker()} }

// same compares what is said of A's object and of two that nobody has, in all that
// is the same for these two.
func (f *finder) same(r Route, said, unsaid, again map[string]string) {
	parts := slices.Sorted(maps.Keys(said))
	for part := range unsaid {
		if _, both := said[part]; !both {
			parts = append(parts, part)
		}
	}
	for _, part := range parts {
		if said[part] != unsaid[part] && again[part] == unsaid[part] {
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
