package openapi

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// operation is one method of one path, as far as it concerns a probe.
type operation struct {
	method, path string
	names        []string // of the parameters in the path, in their order
	parameters   []*openapi3.Parameter
	open         bool // needs no token, and says so itself
	scopes       []string
	request      *openapi3.SchemaRef // of the JSON body; nil: none
	body         any                 // an example that the document gives for all of it
	media        string              // of the body, where it is not application/json
	unsendable   bool                // the body has to be something else than JSON
	response     *openapi3.SchemaRef // of the JSON that comes back where it went well
	location     bool                // a header says where what was made is
	mentions     map[string]bool     // schemas in the response
	extension    extension
}

func (o *operation) String() string { return o.method + " " + o.path }

// tried are the methods that a probe sends, in the order of attempts.
var tried = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// operations lists all, by path and method.
func operations(document *openapi3.T) ([]*operation, []Note) {
	var all []*operation
	var notes []Note
	paths := document.Paths.Map()
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := paths[path]
		if item == nil {
			continue
		}
		for _, method := range tried {
			of := item.GetOperation(method)
			if of == nil {
				continue
			}
			o, err := operationOf(document, method, path, item, of)
			if err != nil {
				notes = append(notes, Note{method + " " + path, err.Error()})
				continue
			}
			if !o.extension.Skip {
				all = append(all, o)
			}
		}
	}
	return all, notes
}

var inPath = regexp.MustCompile(`\{[^{}/]*\}`)

func operationOf(document *openapi3.T, method, path string, item *openapi3.PathItem, of *openapi3.Operation) (*operation, error) {
	o := &operation{method: method, path: path}
	for _, p := range inPath.FindAllString(path, -1) {
		o.names = append(o.names, p[1:len(p)-1])
	}
	for _, list := range []openapi3.Parameters{of.Parameters, item.Parameters} { // the operation's own win
		for _, p := range list {
			if p != nil && p.Value != nil {
				o.parameters = append(o.parameters, p.Value)
			}
		}
	}
	o.security(document, of)
	o.takes(of)
	o.answers(of)
	var err error
	o.extension, err = extensionOf(of.Extensions)
	return o, err
}

func (o *operation) security(document *openapi3.T, of *openapi3.Operation) {
	requirements := document.Security
	if of.Security != nil {
		requirements = *of.Security
		o.open = len(requirements) == 0
	}
	if len(requirements) == 0 {
		return
	}
	for _, scheme := range slices.Sorted(maps.Keys(requirements[0])) {
		o.scopes = append(o.scopes, requirements[0][scheme]...)
	}
}

func (o *operation) takes(of *openapi3.Operation) {
	if of.RequestBody == nil || of.RequestBody.Value == nil {
		return
	}
	body := of.RequestBody.Value
	for _, media := range slices.Sorted(maps.Keys(body.Content)) {
		m := body.Content[media]
		plain, _, _ := strings.Cut(media, ";")
		if m == nil || plain != "application/json" && !strings.HasSuffix(plain, "+json") {
			continue
		}
		o.request, o.body, o.media = m.Schema, m.Example, ""
		if o.request == nil {
			o.request = openapi3.NewSchemaRef("", openapi3.NewObjectSchema())
		}
		for _, name := range slices.Sorted(maps.Keys(m.Examples)) {
			if e := m.Examples[name]; o.body == nil && e != nil && e.Value != nil {
				o.body = e.Value.Value
			}
		}
		if plain == "application/json" {
			return
		}
		o.media = plain
	}
	o.unsendable = o.request == nil && body.Required
}

func (o *operation) answers(of *openapi3.Operation) {
	if of.Responses == nil {
		return
	}
	responses := of.Responses.Map()
	for _, status := range slices.Sorted(maps.Keys(responses)) {
		r := responses[status]
		if !strings.HasPrefix(status, "2") || r == nil || r.Value == nil {
			continue
		}
		for name := range r.Value.Headers {
			o.location = o.location || strings.EqualFold(name, "Location")
		}
		for _, media := range slices.Sorted(maps.Keys(r.Value.Content)) {
			if m := r.Value.Content[media]; m != nil && m.Schema != nil && strings.Contains(media, "json") && o.response == nil {
				o.response = m.Schema
			}
		}
	}
	o.mentions = mentioned(o.response)
}

// ignored are headers that a document does not describe as parameters (OpenAPI
// 3.1 section 4.8.12.1).
var ignored = []string{"Accept", "Authorization", "Content-Type"}

// namesTenant reports what is called like a tenant: Tenant, tenant_id, X-Tenant-Id.
func namesTenant(name string) bool {
	plain := strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(name))
	plain = strings.TrimPrefix(plain, "x")
	return plain == "tenant" || plain == "tenantid"
}

// ofTenant are the parameters of the query and headers that name the tenant, as
// line takes them.
func (o *operation) ofTenant() map[string]string {
	given := map[string]string{}
	for _, p := range o.parameters {
		if before, ok := map[string]string{"query": "?", "header": "header "}[p.In]; ok && namesTenant(p.Name) && free(p.Schema) {
			given[before+p.Name] = "{tenant}"
		}
	}
	return given
}

// line is the request with its parameters filled in: those that are given, the
// others of the path and the required ones from their examples. A name that is
// given has "?" before it in the query, and "header " in a header.
func (o *operation) line(given map[string]string) (string, map[string]string, error) {
	path := o.path
	for _, name := range o.names {
		value, ok := given[name]
		if !ok {
			example, ok := o.parameter("path", name)
			if !ok {
				return "", nil, fmt.Errorf("the parameter %s of its path has no example", name)
			}
			value = url.PathEscape(example)
		}
		path = strings.ReplaceAll(path, "{"+name+"}", value)
	}
	query, headers := "", map[string]string{}
	for _, p := range o.parameters {
		key := url.QueryEscape(p.Name)
		value, ok := given[map[string]string{"query": "?", "header": "header "}[p.In]+p.Name]
		switch {
		case ok && p.In == "header":
			headers[p.Name] = value
			continue
		case ok && p.In == "query":
		case !p.Required || p.In != "query" && p.In != "header" || p.In == "header" && slices.Contains(ignored, http.CanonicalHeaderKey(p.Name)):
			continue
		default:
			if value, ok = o.parameter(p.In, p.Name); !ok {
				return "", nil, fmt.Errorf("the required parameter %s (%s) has no example", p.Name, p.In)
			}
			if p.In == "header" {
				headers[p.Name] = value
				continue
			}
			value = url.QueryEscape(value)
		}
		if !strings.Contains(query, "?"+key+"=") && !strings.Contains(query, "&"+key+"=") {
			query += map[bool]string{true: "?", false: "&"}[query == ""] + key + "=" + value
		}
	}
	if o.media != "" {
		headers["Content-Type"] = o.media
	}
	return o.method + " " + path + query, headers, nil
}

// parameter is the value that the document gives for one. None is made up but
// where the query or a header takes any text.
func (o *operation) parameter(in, name string) (string, bool) {
	for _, p := range o.parameters {
		if p.In != in || p.Name != name {
			continue
		}
		candidates := []any{p.Example}
		for _, key := range slices.Sorted(maps.Keys(p.Examples)) {
			if e := p.Examples[key]; e != nil && e.Value != nil {
				candidates = append(candidates, e.Value.Value)
			}
		}
		if s := p.Schema; s != nil && s.Value != nil {
			candidates = append(candidates, s.Value.Example, s.Value.Default, s.Value.Const)
			candidates = append(append(candidates, s.Value.Examples...), s.Value.Enum...)
		}
		for _, c := range candidates {
			switch c.(type) {
			case string, float64, bool, int, int64, uint64:
				return fmt.Sprint(unbraced(c, 0)), true
			}
		}
		return "probe", in != "path" && free(p.Schema)
	}
	return "", false
}
