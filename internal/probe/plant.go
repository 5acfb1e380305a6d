package probe

import (
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// PlantAttempt is what the cases are called in which B makes an object in A's name.
const PlantAttempt = "plant"

// Plants reports whether B makes such objects in A's name: where the description
// says how to create one with a word in it by which it is known, and a way to name A.
func (d *Description) Plants(o *Object) bool { return len(d.plantings(o)) > 0 }

// planting is one way in which B makes an object and says that it is A's.
type planting struct {
	name     string // for the report
	step     Step
	disguise disguise
}

// plantings are all ways: A's tenant in each place where the create names a tenant,
// alone and together, then the places of forge.
func (d *Description) plantings(o *Object) []planting {
	told := o.Create != nil && (carries(o.Create.Step, "witness") || carries(o.Create.Step, "marker"))
	if !told || o.Shared || o.Plant != nil && !*o.Plant {
		return nil
	}
	var all []planting
	places := tenantPlaces(o.Create.Step)
	for _, place := range places {
		all = append(all, planting{name: "b, " + place + " of a", step: named(o.Create.Step, place)})
	}
	if len(places) > 1 {
		all = append(all, planting{name: "b, every place of a", step: named(o.Create.Step, places...)})
	}
	tenant := d.Tenants.A.Tenant.String()
	for _, h := range d.Forge.Headers {
		if !slices.Contains(places, headerPlace(h)) {
			all = append(all, planting{"b, " + headerPlace(h) + " of a", o.Create.Step, disguise{headers: map[string]string{h: tenant}}})
		}
	}
	for _, q := range d.Forge.Query {
		all = append(all, planting{"b, query " + q + " of a", o.Create.Step, disguise{query: url.Values{q: {tenant}}}})
	}
	for _, member := range d.Forge.Body {
		if step, ok := withMember(o.Create.Step, member); ok {
			all = append(all, planting{name: "b, body " + member + " of a", step: step})
		}
	}
	for i := range all {
		all[i].disguise.name = all[i].name
	}
	return all
}

func headerPlace(name string) string { return "header " + textproto.CanonicalMIMEHeaderKey(name) }

// tenantPlaces are the parts of a request that name a tenant.
func tenantPlaces(s Step) []string {
	var all []string
	path, query, _ := strings.Cut(s.Request, "?")
	for _, p := range []struct {
		name string
		is   Step
	}{{"path", Step{Request: path}}, {"query", Step{Request: query}}, {"body", Step{Body: s.Body}}} {
		if carries(p.is, "tenant") {
			all = append(all, p.name)
		}
	}
	for name, value := range s.Headers {
		if carries(Step{Request: value}, "tenant") {
			all = append(all, headerPlace(name))
		}
	}
	slices.Sort(all)
	return all
}

// named names A in the places given, and in the others still who asks.
func named(s Step, places ...string) Step {
	rename := func(text, place string) string {
		if !slices.Contains(places, place) {
			return text
		}
		return strings.ReplaceAll(text, "{tenant}", "{tenant_a}")
	}
	path, query, asked := strings.Cut(s.Request, "?")
	is := s
	if is.Request = rename(path, "path"); asked {
		is.Request += "?" + rename(query, "query")
	}
	is.Headers = make(map[string]string, len(s.Headers))
	for name, value := range s.Headers {
		is.Headers[name] = rename(value, headerPlace(name))
	}
	is.Body = renamed(s.Body, func(text string) string { return rename(text, "body") })
	return is
}

// renamed is a body with its texts changed.
func renamed(body any, change func(string) string) any {
	switch b := body.(type) {
	case string:
		return change(b)
	case []any:
		all := make([]any, len(b))
		for i, item := range b {
			all[i] = renamed(item, change)
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(b))
		for name, item := range b {
			all[name] = renamed(item, change)
		}
		return all
	}
	return body
}

// withMember adds to a body that is an object, where it has no such member.
func withMember(s Step, member string) (Step, bool) {
	of, ok := s.Body.(map[string]any)
	if _, there := of[member]; !ok || there {
		return s, false
	}
	all := map[string]any{member: "{tenant_a}"}
	for name, value := range of {
		all[name] = value
	}
	s.Body = all
	return s, true
}
