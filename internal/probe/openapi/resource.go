package openapi

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// resource is a kind of object, and the operations on all of them and on one.
type resource struct {
	name       string
	collection string // path
	item       string // path, with one parameter
	create     *operation
	list       *operation
	read       *operation
	remove     *operation
	object     probe.Object
	markerIn   string // the property that may be searched for
	witnessIn  string // the property that tells one from others
	idPointer  string // where the answer to create has the id; "" where Location has it
	scopes     []string
	kinds      map[string]bool // what properties that refer to objects are called
}

// resources are all kinds that can be read one by one below a collection, where
// one can be made or found; failed are the collections of those that can't be
// derived.
func resources(all []*operation) (found []*resource, failed []string, notes []Note) {
	kinds := kindsOf(all)
	for _, read := range all {
		collection, last := path.Split(read.path)
		collection = strings.TrimSuffix(collection, "/")
		if read.method != "GET" || len(read.names) == 0 || !whole.MatchString(last) || collection == "" {
			continue
		}
		r := &resource{collection: collection, item: read.path, read: read, kinds: kinds}
		for _, o := range all {
			switch {
			case o.path == collection && o.method == "POST":
				r.create = o
			case o.path == collection && o.method == "GET":
				r.list = o
			case o.path == r.item && o.method == "DELETE":
				r.remove = o
			}
		}
		if r.create == nil && r.list == nil {
			continue // another way to what is a resource elsewhere
		}
		if len(read.names) > 1 {
			failed = append(failed, collection)
			notes = append(notes, Note{read.String(), "an object within another: write it by hand, with the outer one's id in its paths"})
			continue
		}
		if r.name = read.extension.Object; r.name == "" {
			r.name = singular(path.Base(collection))
		}
		r.name = nameOf(r.name, func(n string) bool {
			return slices.ContainsFunc(found, func(o *resource) bool { return o.name == n })
		})
		if err := r.derive(); err != nil {
			failed = append(failed, collection)
			notes = append(notes, Note{r.item, err.Error()})
			continue
		}
		found = append(found, r)
	}
	return found, failed, notes
}

// kindsOf are the names of all kinds of objects that the paths tell of.
func kindsOf(all []*operation) map[string]bool {
	kinds := make(map[string]bool)
	for _, o := range all {
		segments := strings.Split(o.path, "/")
		for i, s := range segments {
			if i > 0 && whole.MatchString(s) {
				kinds[strings.ToLower(singular(segments[i-1]))] = true
			}
		}
	}
	return kinds
}

// whole is a segment that is one parameter.
var whole = regexp.MustCompile(`\A\{[^{}/]+\}\z`)

var notInNames = regexp.MustCompile(`[^a-z0-9_-]+`)

// nameOf makes a name that the description takes, and that is not taken.
func nameOf(text string, taken func(string) bool) string {
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(text), "-"), "-_")
	name = name[:min(len(name), 56)]
	if name == "" {
		name = "object"
	}
	for unique, n := name, 2; ; n++ {
		if !taken(unique) {
			return unique
		}
		unique = fmt.Sprintf("%s-%d", name, n)
	}
}

// singular is what one of a collection is called: in most names, and where not it
// is a name too.
func singular(name string) string {
	switch {
	case strings.HasSuffix(name, "ies"):
		return strings.TrimSuffix(name, "ies") + "y"
	case strings.HasSuffix(name, "sses"), strings.HasSuffix(name, "xes"):
		return strings.TrimSuffix(name, "es")
	case strings.HasSuffix(name, "s") && !strings.HasSuffix(name, "ss"):
		return strings.TrimSuffix(name, "s")
	}
	return name
}

// id stands for the parameter of an item's path.
func (r *resource) id(as string) map[string]string { return map[string]string{r.read.names[0]: as} }

// derive makes the object, without attempts.
func (r *resource) derive() error {
	o := probe.Object{Name: r.name, Reveals: r.read.extension.Reveals}
	var err error
	if o.Read, _, err = r.read.line(r.id("{id}")); err != nil {
		return err
	}
	if r.remove != nil {
		if o.Delete, _, err = r.remove.line(r.id("{id}")); err != nil {
			return err
		}
	}
	o.Shared = r.read.open && (r.create == nil || !r.create.open)
	if shared := r.read.extension.Shared; shared != nil {
		o.Shared = *shared
	}
	for _, of := range []*operation{r.create, r.list, r.read, r.remove} {
		if of != nil {
			r.scopes = append(r.scopes, of.scopes...)
		}
	}
	if r.create != nil {
		err = r.made(&o)
	} else {
		err = r.found(&o)
	}
	r.object = o
	return err
}

// made derives how one is made, with the words in it that tell it from others.
func (r *resource) made(o *probe.Object) error {
	request, headers, err := r.create.line(r.create.ofTenant())
	switch {
	case err != nil:
		return err
	case r.create.unsendable:
		return fmt.Errorf("%s takes no JSON", r.create)
	}
	var ok bool
	if r.idPointer, ok = r.whereID(); !ok {
		return fmt.Errorf("where %s says the id can't be told: its answer has neither a property %q or id nor a header Location", r.create, r.read.names[0])
	}
	body, _ := r.create.sample().(map[string]any)
	marker, witness := r.words(body)
	if witness == "" && len(o.Reveals) == 0 && !o.Shared {
		return fmt.Errorf("nothing in the body of %s can tell A's object from others (a text without format, enum and pattern, of %d characters or more, that %s shows): name what does as reveals in %s of %s",
			r.create, wordLength, r.read, extensionName, r.read)
	}
	if r.witnessIn = witness; witness != "" {
		body[witness] = "{witness}"
	}
	if r.markerIn = marker; marker != "" {
		body[marker] = "{marker}"
	}
	for _, name := range r.tenants(r.create) {
		if body != nil {
			body[name] = "{tenant}"
		}
	}
	o.Create = &probe.Origin{Step: probe.Step{Request: request, Headers: headers, Body: bodyOrNil(body)}, ID: r.idPointer}
	return nil
}

// found derives where there is one already.
func (r *resource) found(o *probe.Object) error {
	if len(o.Reveals) == 0 && !o.Shared {
		return fmt.Errorf("there is no POST %s, so objects have to be found, and which of their values nobody else has the document does not say: name them as reveals in %s of %s", r.collection, extensionName, r.read)
	}
	request, headers, err := r.list.line(nil)
	if err != nil {
		return err
	}
	at, ok := r.idInList()
	if !ok {
		return errors.New("where an id is in the answer to GET " + r.collection + " can't be told")
	}
	o.Find = &probe.Origin{Step: probe.Step{Request: request, Headers: headers}, ID: at}
	return nil
}

func bodyOrNil(body map[string]any) any {
	if body == nil {
		return nil
	}
	return body
}

// whereID is a JSON pointer into the answer to create, or "" for Location.
func (r *resource) whereID() (string, bool) {
	if name := r.idProperty(r.create.response); name != "" {
		return "/" + escaped(name), true
	}
	for _, name := range shapeOf(r.create.response).names() { // in an envelope such as data
		inner := shapeOf(r.create.response).properties[name]
		if id := r.idProperty(inner); id != "" {
			return "/" + escaped(name) + "/" + escaped(id), true
		}
	}
	return "", r.create.location
}

// idProperty is the property that is called as the parameter is, or id.
func (r *resource) idProperty(s *openapi3.SchemaRef) string {
	of := shapeOf(s)
	for _, name := range []string{r.read.names[0], "id", "uuid"} {
		if p := of.properties[name]; is(p, "string") || is(p, "integer") {
			return name
		}
	}
	return ""
}

func (r *resource) idInList() (string, bool) {
	in := func(s *openapi3.SchemaRef, at string) (string, bool) {
		if !is(s, "array") {
			return "", false
		}
		id := r.idProperty(s.Value.Items)
		return at + "/0/" + escaped(id), id != ""
	}
	if at, ok := in(r.list.response, ""); ok {
		return at, true
	}
	of := shapeOf(r.list.response)
	for _, name := range of.names() {
		if at, ok := in(of.properties[name], "/"+escaped(name)); ok {
			return at, true
		}
	}
	return "", false
}

func escaped(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// searched are properties that a search is likely to look into.
var searched = []string{"name", "title", "subject", "label", "note", "summary", "description", "text", "content"}

// words chooses where {marker} and {witness} go: texts that may be anything, and
// that whoever reads the object sees. One that the document names wins.
func (r *resource) words(body map[string]any) (marker, witness string) {
	takes, shows := shapeOf(r.create.request), shapeOf(r.read.response)
	var candidates []string
	for _, name := range takes.names() {
		p := takes.properties[name]
		switch word := placed(extensionsOf(p)); {
		case word == "marker":
			marker = name
		case word == "witness":
			witness = name
		case word != "tenant" && free(p) && !r.reference(name) && (len(shows.properties) == 0 || shows.has(name)):
			candidates = append(candidates, name)
		}
	}
	if body == nil {
		return "", ""
	}
	rank := func(name string) int {
		if at := slices.Index(searched, strings.ToLower(name)); at >= 0 {
			return at
		}
		return len(searched)
	}
	slices.SortStableFunc(candidates, func(a, b string) int { return rank(a) - rank(b) })
	if witness == "" && len(candidates) > 0 {
		witness, candidates = candidates[len(candidates)-1], candidates[:len(candidates)-1]
	}
	if marker == "" && len(candidates) > 0 {
		marker = candidates[0]
	}
	return marker, witness
}

// tenants are the properties in which an operation is told the tenant: those that are
// called so, or that the document names.
func (r *resource) tenants(o *operation) []string {
	var all []string
	of := shapeOf(o.request)
	for _, name := range of.names() {
		if p := of.properties[name]; placed(extensionsOf(p)) == "tenant" || namesTenant(name) && free(p) {
			all = append(all, name)
		}
	}
	return all
}

func extensionsOf(s *openapi3.SchemaRef) map[string]any {
	if s == nil || s.Value == nil {
		return nil
	}
	if s.Value.Extensions[extensionName] != nil {
		return s.Value.Extensions
	}
	return s.Extensions
}

// reference reports a property that is called like the id of something, or like
// a kind of objects.
func (r *resource) reference(name string) bool {
	small := strings.ToLower(name)
	return r.kinds[small] || namesTenant(name) || small == "id" || strings.HasSuffix(small, "_id") || strings.HasSuffix(name, "Id") || strings.HasSuffix(name, "ID")
}

// sample is a body that the operation takes.
func (o *operation) sample() any {
	switch {
	case o.request == nil:
		return nil
	case o.body != nil:
		return unbraced(o.body, 0)
	}
	return unbraced(example(o.request), 0)
}
