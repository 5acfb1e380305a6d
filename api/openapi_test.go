package api

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/tenantbroker/tenantbroker/api/wire"
)

// apiDocument is docs/openapi.yaml.
type apiDocument struct{ *openapi3.T }

func loadDocument(t *testing.T) apiDocument {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return apiDocument{doc}
}

func (d apiDocument) operation(t *testing.T, method, path string) *openapi3.Operation {
	t.Helper()
	item := d.Paths.Value(path)
	if item == nil || item.GetOperation(method) == nil {
		t.Errorf("%s %s is not in the document", method, path)
		return nil
	}
	return item.GetOperation(method)
}

// holds checks an answer against what the document says of it.
func (d apiDocument) holds(t *testing.T, method, path string, a got) {
	t.Helper()
	op := d.operation(t, method, path)
	if op == nil {
		return
	}
	response := op.Responses.Value(strconv.Itoa(a.status))
	if response == nil {
		response = op.Responses.Default()
	}
	if response == nil {
		t.Errorf("%s %s: nothing is said of status %d", method, path, a.status)
		return
	}
	if a.body == "" || strings.HasPrefix(a.header.Get("Content-Type"), wire.AuditExportContentType) {
		return
	}
	media := response.Value.Content.Get(a.header.Get("Content-Type"))
	if media == nil {
		t.Errorf("%s %s: nothing is said of %s", method, path, a.header.Get("Content-Type"))
		return
	}
	var v any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatal(err)
	}
	if err := media.Schema.Value.VisitJSON(v, openapi3.VisitAsResponse()); err != nil {
		t.Errorf("%s %s: %d is not as the document says: %v", method, path, a.status, err)
	}
}

// takes checks that the document allows a request body that the server took.
func (d apiDocument) takes(t *testing.T, method, path string, body any) {
	t.Helper()
	text, sent := body.(string)
	op := d.operation(t, method, path)
	if !sent || op == nil {
		return
	}
	for _, media := range op.RequestBody.Value.Content {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if err := media.Schema.Value.VisitJSON(v, openapi3.VisitAsRequest()); err != nil {
			t.Errorf("%s %s: the document doesn't allow what the server takes: %v", method, path, err)
		}
	}
}

func TestTheDocumentAndTheRoutesAreTheSame(t *testing.T) {
	doc := loadDocument(t)
	mounted := map[string]bool{}
	for _, path := range []string{wire.PathToken, wire.PathIntrospect, wire.PathRevoke} {
		mounted["POST "+path] = true
	}
	for _, path := range []string{wire.PathJWKS, wire.PathServerMetadata, wire.PathOpenIDConfiguration} {
		mounted["GET "+path] = true
	}
	mounted["GET "+wire.PathCheck] = true // on a listener of its own
	for _, r := range adminRoutes() {
		mounted[r.method+" "+r.path] = true
		op := doc.operation(t, r.method, r.path)
		if op == nil {
			continue
		}
		if role, said := op.Extensions["x-role"]; said != (r.role != "") || said && role != string(r.role) {
			t.Errorf("%s %s needs %s, the document says %v", r.method, r.path, r.role, op.Extensions["x-role"])
		}
		var params []string
		for _, p := range op.Parameters {
			if p.Value.In == openapi3.ParameterInQuery {
				params = append(params, p.Value.Name)
			}
		}
		known := slices.Clone(r.query)
		sort.Strings(known)
		sort.Strings(params)
		if !slices.Equal(known, params) {
			t.Errorf("%s %s takes %v, the document says %v", r.method, r.path, known, params)
		}
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if !mounted[method+" "+path] {
				t.Errorf("%s %s is in the document and not mounted", method, path)
			}
			delete(mounted, method+" "+path)
		}
	}
	for left := range mounted {
		t.Errorf("%s is mounted and not in the document", left)
	}
}

// Who reads If-Match refuses one that is none; all others pass over it.
func TestTheDocumentSaysWhereIfMatchIsRead(t *testing.T) {
	w, doc := rotating(t), loadDocument(t)
	for _, r := range adminRoutes() {
		op := doc.operation(t, r.method, r.path)
		if op == nil || r.role == "" {
			continue
		}
		said := op.Parameters.GetByInAndName(openapi3.ParameterInHeader, "If-Match") != nil
		path := regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(r.path, "nothing")
		a := w.call(w.rootToken(), r.method, path, `{}`, "If-Match", "none")
		if read := strings.Contains(a.body, `"field":"If-Match"`); read != said {
			t.Errorf("%s %s reads If-Match: %t; the document says %t; the answer is %s", r.method, r.path, read, said, a.body)
		}
	}
}

func TestTheCodesOfTheDocumentAreAllThereAre(t *testing.T) {
	doc := loadDocument(t)
	var said, known []string
	for _, v := range doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		said = append(said, fmt.Sprint(v))
	}
	statuses := doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Description
	for code, kind := range problemKinds {
		known = append(known, code)
		if !regexp.MustCompile(fmt.Sprintf(`(^|\s)%d [^;]*\b%s\b`, kind.status, code)).MatchString(statuses) {
			t.Errorf("the document doesn't say that %s comes with %d", code, kind.status)
		}
	}
	sort.Strings(said)
	sort.Strings(known)
	if !slices.Equal(said, known) {
		t.Errorf("the document says %v, there are %v", said, known)
	}
}

func TestTheTokenEndpointsAnswerAsTheDocumentSays(t *testing.T) {
	doc := loadDocument(t)
	w := service(t)
	token := w.post(wire.PathToken, w.tokenForm("worker", "orders", "acme"))
	doc.holds(t, "POST", wire.PathToken, token)
	doc.holds(t, "POST", wire.PathToken, w.post(wire.PathToken, w.tokenForm("worker", "orders", "globex")))
	doc.holds(t, "POST", wire.PathToken, w.post(wire.PathToken, nil))
	form := w.tokenForm("worker", "", "")
	form.Set("token", token.json("access_token"))
	doc.holds(t, "POST", wire.PathIntrospect, w.post(wire.PathIntrospect, form))
	doc.holds(t, "POST", wire.PathIntrospect, w.post(wire.PathIntrospect, form)) // a replay
	for _, path := range []string{wire.PathJWKS, wire.PathServerMetadata} {
		doc.holds(t, "GET", path, w.call("", "GET", path, nil))
	}
}
