package openapi

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// attempts gives each operation to the object that it is about. What is below a
// collection that failed was said with it.
func (d *Draft) attempts(all []*operation, found []*resource, failed []string) {
	for _, o := range all {
		if slices.ContainsFunc(found, func(r *resource) bool { return r.create == o }) && len(o.extension.Attempts) == 0 {
			continue
		}
		r, reason := about(o, found)
		if r == nil && slices.ContainsFunc(failed, func(c string) bool { return o.path == c || strings.HasPrefix(o.path, c+"/") }) {
			continue
		}
		if r == nil {
			d.note(o.String(), "%s: name it as object in %s, or skip it", reason, extensionName)
			continue
		}
		if !d.below(r, o, found) {
			d.attempt(r, o)
		}
	}
	for _, r := range found {
		for _, of := range found {
			d.refers(r, of, all, found)
		}
	}
	for _, r := range found {
		last(r.object.Try)
	}
}

// last moves what would remove the object behind all else.
func last(try []probe.Attempt) {
	slices.SortStableFunc(try, func(a, b probe.Attempt) int { return order(a) - order(b) })
}

func order(a probe.Attempt) int {
	switch method, _, _ := strings.Cut(a.Request, " "); method {
	case "DELETE":
		return 2
	case "PUT", "PATCH":
		return 1
	}
	if a.Changes != nil && *a.Changes {
		return 1
	}
	return 0
}

// about says which object an operation is about: what the document says, what its
// path is below, or what it answers with.
func about(o *operation, found []*resource) (*resource, string) {
	if name := o.extension.Object; name != "" {
		for _, r := range found {
			if r.name == name {
				return r, ""
			}
		}
		return nil, fmt.Sprintf("there is no object %.40q", name)
	}
	var by *resource
	for _, r := range found { // the longest collection wins
		if (o.path == r.collection || strings.HasPrefix(o.path, r.collection+"/")) && (by == nil || len(r.collection) > len(by.collection)) {
			by = r
		}
	}
	if by != nil {
		return by, ""
	}
	for _, r := range found {
		if r.read.response != nil && r.read.response.Ref != "" && o.mentions[r.read.response.Ref] {
			return r, ""
		}
	}
	for _, r := range found {
		if len(o.names) == 1 && slices.Contains(strings.Split(o.path, "/"), path.Base(r.collection)) {
			return r, ""
		}
	}
	return nil, "which object it is about can't be told"
}

// attempt adds what an operation is tried with.
func (d *Draft) attempt(r *resource, o *operation) {
	given := map[string]string{}
	if len(o.names) > 0 {
		given[r.paramOf(o)] = "{id}"
	}
	asks := false
	if name := o.searchedBy(); name != "" && r.markerIn != "" {
		given["?"+name], asks = "{marker}", true
	}
	request, headers, err := o.line(given)
	if err == nil && o.unsendable {
		err = fmt.Errorf("its body is no JSON")
	}
	if err != nil && len(o.extension.Attempts) == 0 {
		d.note(o.String(), "%v", err)
		return
	}
	if len(o.extension.Attempts) > 0 {
		for _, a := range o.extension.Attempts {
			if a.Request == "" {
				a.Request = request
			}
			d.add(r, o, a)
		}
		return
	}
	if target, _, _ := strings.Cut(request, "?"); o.method != "GET" && o.method != "POST" && !strings.Contains(target, "{id}") {
		// One wrong guess here, such as an ignored body, would be all of a tenant's.
		d.note(o.String(), "it changes or removes more than one object, by what is not in its path: write its attempts in %s, or by hand", extensionName)
		return
	}
	a := probe.Attempt{Name: o.attemptName(r), Control: o.extension.Control, Changes: o.extension.Changes, Settle: o.extension.Settle}
	a.Request, a.Headers = request, headers
	body, carries := r.body(o)
	a.Body = body
	no, yes := false, true
	switch {
	case o.method == "POST" && len(o.names) > 0:
		if a.Changes == nil {
			a.Changes = &yes
		}
	case o.method == "POST" && !carries:
		d.note(o.String(), "nothing in it names an object: write its attempts in %s", extensionName)
		return
	}
	if asks && a.Settle == 0 {
		a.Settle = 5 * time.Second
	}
	if a.Control == nil && r.beyond(o) {
		a.Control = &no
		d.note(o.String(), "tried without control: it needs a scope (%s) that the object's own operations don't", strings.Join(o.scopes, " "))
	}
	d.add(r, o, a)
}

// beyond reports an operation that needs a scope which those of the object itself
// don't, so that who probes is not expected to have it.
func (r *resource) beyond(o *operation) bool {
	return slices.ContainsFunc(o.scopes, func(s string) bool { return !slices.Contains(r.scopes, s) })
}

// add keeps an attempt that can be one.
func (d *Draft) add(r *resource, o *operation, a probe.Attempt) {
	a.Name = nameOf(a.Name, func(n string) bool {
		return slices.ContainsFunc(r.object.Try, func(other probe.Attempt) bool { return other.Name == n })
	})
	if len(r.object.Try) == probe.MaxAttempts {
		d.note(o.String(), "beyond %d attempts with one kind of object", probe.MaxAttempts)
		return
	}
	if err := a.Check(); err != nil {
		d.note(o.String(), "%v", err)
		return
	}
	if r.object.Create == nil && a.MayDamage() && !r.object.MayDamage {
		d.note(o.String(), "not tried with objects that were there before, which it could change (may_damage; changes: false where it does not)")
		return
	}
	r.object.Try = append(r.object.Try, a)
}

// paramOf is the parameter of an operation's path that is the object's id: the
// one of the same name, the one at the same place, or the only one.
func (r *resource) paramOf(o *operation) string {
	if slices.Contains(o.names, r.read.names[0]) {
		return r.read.names[0]
	}
	segments := strings.Split(o.path, "/")
	for i, s := range segments {
		if whole.MatchString(s) && i > 0 && segments[i-1] == path.Base(r.collection) {
			return s[1 : len(s)-1]
		}
	}
	return o.names[0]
}

var terms = regexp.MustCompile(`(?i)\A(q|query|search|term|filter|text|name|title|keyword)\z`)

// searchedBy is a parameter of the query that takes what is searched for.
func (o *operation) searchedBy() string {
	if o.method != "GET" || len(o.names) > 0 {
		return ""
	}
	for _, p := range o.parameters {
		if p.In == "query" && terms.MatchString(p.Name) && free(p.Schema) {
			return p.Name
		}
	}
	return ""
}

// attemptName is what the operation does, in a word.
func (o *operation) attemptName(r *resource) string {
	if o.path == r.item {
		return map[string]string{"GET": "read", "PUT": "update", "PATCH": "amend", "DELETE": "delete", "POST": "post"}[o.method]
	}
	if o.path == r.collection {
		return map[string]string{"GET": "list", "POST": "create"}[o.method]
	}
	rest, below := strings.CutPrefix(o.path, r.item+"/")
	if !below {
		rest = strings.TrimPrefix(o.path, r.collection+"/")
	}
	name := inPath.ReplaceAllString(rest, "")
	if o.method != "GET" && o.method != "POST" {
		name += "-" + o.method
	}
	return name
}

// body is what the operation takes, with the ids of A's and B's object where it
// asks for ids; carries says whether it does.
func (r *resource) body(o *operation) (body any, carries bool) {
	sample := o.sample()
	members, ok := sample.(map[string]any)
	if !ok {
		return sample, false
	}
	of := shapeOf(o.request)
	for _, name := range of.names() {
		p := of.properties[name]
		switch {
		case is(p, "array") && slices.Contains(r.callsIDs(), strings.ToLower(name)):
			members[name], carries = []any{"{id}", "{own}"}, true
		case is(p, "string") && slices.Contains(r.callsID(), strings.ToLower(name)) && len(o.names) == 0:
			members[name], carries = "{id}", true
		case members[name] != nil && slices.Contains(r.tenants(o), name):
			members[name] = "{tenant_a}"
		case o.method != "POST" && free(p) && !r.reference(name):
			if _, there := members[name]; there || o.body == nil {
				members[name] = "changed by the probe"
			}
		}
	}
	return members, carries
}

func (r *resource) callsID() []string {
	n := strings.ReplaceAll(r.name, "-", "_")
	return []string{"id", n + "_id", n + "id", n}
}

func (r *resource) callsIDs() []string {
	n := strings.ReplaceAll(r.name, "-", "_")
	return []string{"ids", n + "_ids", n + "ids", strings.ToLower(path.Base(r.collection))}
}

// refers makes, as everybody, an object of another kind that refers to A's, and
// looks at it in every way: what it refers to may be shown with it.
func (d *Draft) refers(to, from *resource, all []*operation, found []*resource) {
	property := from.refersTo(to)
	body, ok := from.createBody()
	if property == "" || !ok {
		return
	}
	body[property] = "{id}"
	for _, o := range all {
		if r, _ := about(o, found); r != from || o.method != "GET" || len(o.names) != 1 || o.extension.Skip || len(o.extension.Attempts) > 0 {
			continue
		}
		if shows := shapeOf(o.response); !shows.has(property) && !o.mentions[to.read.ref()] {
			continue
		}
		look, headers, err := o.line(map[string]string{from.paramOf(o): "{made}"})
		if err != nil {
			continue // said already
		}
		if from.beyond(o) {
			continue // not even A would get an answer
		}
		a := probe.Attempt{Name: "in-" + from.name + "-" + o.attemptName(from)}
		a.Request, a.Headers, a.Body = from.object.Create.Request, from.object.Create.Headers, body
		a.Save = map[string]string{"made": from.idPointer}
		a.Then = []probe.Step{{Request: look, Headers: headers}}
		if from.object.Delete != "" {
			a.Cleanup = []probe.Step{{Request: strings.Replace(from.object.Delete, "{id}", "{made}", 1)}}
		}
		d.add(to, o, a)
	}
}

func (o *operation) ref() string {
	if o.response == nil {
		return ""
	}
	return o.response.Ref
}
