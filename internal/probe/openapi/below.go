package openapi

import (
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// below makes, as everybody, an object of another kind that refers to A's, where an
// operation below A's object lists such: A must not be shown what others have put
// there. Nothing of A's object itself is in such a list, so it is tried in this way
// alone. False: the operation is no such list.
func (d *Draft) below(to *resource, o *operation, found []*resource) bool {
	if o.method != "GET" || len(o.names) != 1 || !strings.HasPrefix(o.path, to.item+"/") || len(o.extension.Attempts) > 0 || to.object.Create == nil || o.mentions[to.read.ref()] {
		return false
	}
	for _, from := range found {
		property := from.refersTo(to)
		body, ok := from.createBody()
		if property == "" || !ok || from.witnessIn == "" || from.read.ref() == "" || !o.mentions[from.read.ref()] {
			continue
		}
		look, headers, err := o.line(map[string]string{to.paramOf(o): "{id}"})
		if err != nil || len(headers) > 0 {
			continue // it is said with the operation's own attempt
		}
		body[property], body[from.witnessIn] = "{id}", "{planted}"
		a := probe.Attempt{Name: "plant-" + o.attemptName(to), Seen: []string{look, strings.Replace(from.object.Read, "{id}", "{made}", 1)}}
		a.Request, a.Headers, a.Body = from.object.Create.Request, from.object.Create.Headers, body
		if a.Save = map[string]string{"made": from.idPointer}; from.object.Delete != "" {
			a.Cleanup = []probe.Step{{Request: strings.Replace(from.object.Delete, "{id}", "{made}", 1)}}
		}
		d.add(to, o, a)
		return true
	}
	return false
}

// refersTo is the property by which one that is made refers to one of another kind;
// "" where there is none, or none that can be removed again.
func (r *resource) refersTo(to *resource) string {
	if to == r || to.object.Create == nil || r.object.Create == nil || r.idPointer == "" {
		return ""
	}
	takes, property := shapeOf(r.create.request), ""
	for _, name := range takes.names() {
		if small := strings.ToLower(name); small != "id" && slices.Contains(to.callsID(), small) && is(takes.properties[name], "string") {
			property = name
		}
	}
	return property
}

func (r *resource) createBody() (map[string]any, bool) {
	if r.create == nil {
		return nil, false
	}
	body, ok := r.create.sample().(map[string]any)
	return body, ok
}
