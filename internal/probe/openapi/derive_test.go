package openapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
	"github.com/tenantbroker/tenantbroker/internal/probe/openapi"
)

// small is a document with one kind of object.
const small = `
openapi: 3.0.3
info: {title: Small Service, version: "1"}
servers: [{url: https://small.example.com/api/}]
paths:
  /orders:
    post:
      requestBody: {content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}
      responses: {"201": {description: Made., content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}}
  /orders/{orderId}:
    parameters: [{name: orderId, in: path, required: true, schema: {type: string}}]
    get:
      responses: {"200": {description: One., content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}}
  # more
components:
  schemas:
    Order:
      type: object
      required: [kind]
      properties:
        orderId: {type: string, readOnly: true}
        kind: {type: string, enum: [big, small]}
        words: {type: string}
        # properties
`

func with(t *testing.T, changes ...string) *openapi.Draft {
	t.Helper()
	d, err := derive(changes...)
	if err != nil {
		t.Fatalf("%v: %+v", err, d.Notes)
	}
	return d
}

func derive(changes ...string) (*openapi.Draft, error) {
	text := small
	for i := 0; i < len(changes); i += 2 {
		if strings.Count(text, changes[i]) != 1 {
			panic(fmt.Sprintf("%q is not in it once", changes[i]))
		}
		text = strings.Replace(text, changes[i], changes[i+1], 1)
	}
	return openapi.Derive([]byte(text))
}

func TestASmallDocument(t *testing.T) {
	d := with(t)
	text, err := d.YAML()
	if err != nil {
		t.Fatal(err)
	}
	want := `# Derived from an OpenAPI document. Look through it: what is not tried is at the end.
service: small-service
base_url: https://small.example.com/api
tenants:
  a: {tenant: probe-a, token_file: a.token}
  b: {tenant: probe-b, token_file: b.token}
objects:
  - name: order
    create:
      request: POST /orders
      body:
        kind: big
        words: '{witness}'
      id: /orderId
    read: GET /orders/{id}
    try:
      - name: read
        request: GET /orders/{id}
`
	if string(text) != want {
		t.Errorf("%s", text)
	}
	if _, err := probe.ParseDescription(text); err != nil {
		t.Error(err)
	}
}

// What a document says more, and what comes of it.
func TestDerived(t *testing.T) {
	path := func(is string) []string { return []string{"  # more\n", "  " + strings.TrimSpace(is) + "\n"} }
	property := func(is string) []string { return []string{"        # properties\n", "        " + is + "\n"} }
	id := `parameters: [{name: orderId, in: path, required: true, schema: {type: string}}], `
	for name, k := range map[string]struct {
		changes []string
		want    func(o probe.Object) any
		is      string
	}{
		"a way below the item":             {path(`/orders/{orderId}/lines: {` + id + `get: {responses: {}}}`), try(1), "lines GET /orders/{id}/lines"},
		"a way below with another name":    {path(`/orders/{oid}/lines: {get: {responses: {}}}`), try(0), "lines GET /orders/{id}/lines"},
		"an action changes":                {path(`/orders/{orderId}/close: {post: {responses: {}}}`), func(o probe.Object) any { return *o.Try[1].Changes }, "true"},
		"a parameter with an example":      {path(`/orders/{orderId}/as/{form}: {parameters: [{name: form, in: path, required: true, schema: {type: string, enum: [a b]}}], get: {responses: {}}}`), try(1), "as GET /orders/{id}/as/a%20b"},
		"a required query":                 {path(`/orders/{orderId}/x: {get: {parameters: [{name: n, in: query, required: true, schema: {type: integer, example: 3}}, {name: f, in: query, schema: {type: string}}], responses: {}}}`), try(1), "x GET /orders/{id}/x?n=3"},
		"a required text of the query":     {path(`/orders/{orderId}/x: {get: {parameters: [{name: why, in: query, required: true, schema: {type: string}}], responses: {}}}`), try(1), "x GET /orders/{id}/x?why=probe"},
		"a required header":                {path(`/orders/{orderId}/x: {get: {parameters: [{name: X-Form, in: header, required: true, example: full}, {name: Authorization, in: header, required: true}], responses: {}}}`), func(o probe.Object) any { return o.Try[1].Headers }, "map[X-Form:full]"},
		"a batch":                          {path(`/orders/many: {post: {requestBody: {content: {application/json: {schema: {type: object, properties: {order_ids: {type: array, items: {type: string}}}}}}}, responses: {}}}`), func(o probe.Object) any { return o.Try[0].Body }, "map[order_ids:[{id} {own}]]"},
		"a body that names the object":     {path(`/orders/print: {post: {requestBody: {content: {application/json: {schema: {type: object, properties: {order_id: {type: string}}}}}}, responses: {}}}`), func(o probe.Object) any { return o.Try[0].Body }, "map[order_id:{id}]"},
		"a merge patch":                    {path(`/orders/{orderId}/x: {patch: {requestBody: {content: {application/merge-patch+json: {schema: {$ref: "#/components/schemas/Order"}}}}, responses: {}}}`), func(o probe.Object) any { return o.Try[1].Headers }, "map[Content-Type:application/merge-patch+json]"},
		"what a change sends is another":   {path(`/orders/{orderId}/x: {put: {requestBody: {content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}, responses: {}}}`), func(o probe.Object) any { return o.Try[1].Body }, "map[kind:big words:changed by the probe]"},
		"an example of the whole body":     {[]string{"schema: {$ref: \"#/components/schemas/Order\"}}}}\n      responses: {\"201\"", "schema: {$ref: \"#/components/schemas/Order\"}, example: {kind: small, size: 2.0, note: \"a {brace}\"}}}}\n      responses: {\"201\""}, func(o probe.Object) any { return o.Create.Body }, "map[kind:small note:a (brace) size:2 words:{witness}]"},
		"examples by name":                 {[]string{"schema: {$ref: \"#/components/schemas/Order\"}}}}\n      responses: {\"201\"", "schema: {$ref: \"#/components/schemas/Order\"}, examples: {one: {value: {kind: tiny}}}}}}\n      responses: {\"201\""}, func(o probe.Object) any { return o.Create.Body }, "map[kind:tiny words:{witness}]"},
		"two words":                        {property("note: {type: string}"), func(o probe.Object) any { return o.Create.Body }, "map[kind:big note:{marker} words:{witness}]"},
		"the document says which":          {property("note: {type: string, x-tenantbroker-probe: witness}"), func(o probe.Object) any { return o.Create.Body }, "map[kind:big note:{witness} words:{marker}]"},
		"the tenant in the body":           {property("tenant_id: {type: string}"), func(o probe.Object) any { return o.Create.Body }, "map[kind:big tenant_id:{tenant} words:{witness}]"},
		"no tenant where a form is asked":  {property("tenant: {type: string, format: uuid}"), func(o probe.Object) any { return o.Create.Body }, "map[kind:big words:{witness}]"},
		"no tenant in what only comes":     {property("tenant: {type: string, readOnly: true}"), func(o probe.Object) any { return o.Create.Body }, "map[kind:big words:{witness}]"},
		"the document says it's a tenant":  {property("shop: {type: string, x-tenantbroker-probe: tenant}"), func(o probe.Object) any { return o.Create.Body }, "map[kind:big shop:{tenant} words:{witness}]"},
		"the tenant in a header":           {[]string{"    post:\n", "    post:\n      parameters: [{name: X-Tenant-Id, in: header, schema: {type: string}}]\n"}, func(o probe.Object) any { return o.Create.Headers }, "map[X-Tenant-Id:{tenant}]"},
		"the tenant in the query":          {[]string{"    post:\n", "    post:\n      parameters: [{name: tenant, in: query, required: true, schema: {type: string}}]\n"}, func(o probe.Object) any { return o.Create.Request }, "POST /orders?tenant={tenant}"},
		"a change names its own tenant":    {[]string{"required: [kind]", "required: [kind, tenant]", "        # properties\n", "        tenant: {type: string}\n", "    get:\n", "    put: {requestBody: {content: {application/json: {schema: {$ref: \"#/components/schemas/Order\"}}}}, responses: {}}\n    get:\n"}, func(o probe.Object) any { return o.Try[1].Body }, "map[kind:big tenant:{tenant_a} words:changed by the probe]"},
		"no word where an id goes":         {property("shop_id: {type: string}"), func(o probe.Object) any { return o.Create.Body }, "map[kind:big words:{witness}]"},
		"no word where it doesn't fit":     {property("zip: {type: string, maxLength: 24}"), func(o probe.Object) any { return o.Create.Body }, "map[kind:big words:{witness}]"},
		"no word where a form is asked":    {property("zip: {type: string, pattern: '^[0-9]*$'}"), func(o probe.Object) any { return o.Create.Body }, "map[kind:big words:{witness}]"},
		"required values of all kinds":     {[]string{"required: [kind]", "required: [kind, n, m, b, d, u, e, w, l, k, s, o]", "        # properties\n", "        n: {type: integer, minimum: 4}\n        m: {type: number}\n        b: {type: boolean}\n        d: {type: string, format: date-time}\n        u: {type: string, format: uuid}\n        e: {type: string, format: email}\n        w: {type: string, format: uri}\n        l: {type: array, minItems: 1, items: {type: string, maxLength: 3}}\n        k: {type: array, items: {}}\n        s: {type: string, minLength: 30}\n        o: {type: object, required: [x], properties: {x: {type: string, default: y}, z: {type: string}}}\n"}, func(o probe.Object) any { return o.Create.Body }, "map[b:true d:2026-01-01T00:00:00Z e:probe@example.com k:[] kind:big l:[pro] m:1 n:5 o:map[x:y] s:probeeeeeeeeeeeeeeeeeeeeeeeeee u:3f1c0f7e-52a5-4a31-9f0d-2f6d4d1c8a55 w:https://example.com/probe words:{witness}]"},
		"the id in an envelope":            {[]string{`{description: Made., content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}`, `{description: Made., content: {application/json: {schema: {type: object, properties: {data: {$ref: "#/components/schemas/Order"}}}}}}`}, func(o probe.Object) any { return o.Create.ID }, "/data/orderId"},
		"the id in Location":               {[]string{`{description: Made., content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}`, `{description: Made., headers: {Location: {schema: {type: string}}}}`}, func(o probe.Object) any { return o.Create.ID == "" }, "true"},
		"shared as the document says":      {[]string{"    get:\n", "    get:\n      security: []\n"}, func(o probe.Object) any { return o.Shared }, "true"},
		"not shared as the probe is told":  {[]string{"    get:\n", "    get:\n      security: []\n      x-tenantbroker-probe: {shared: false}\n"}, func(o probe.Object) any { return o.Shared }, "false"},
		"another name":                     {[]string{"    get:\n", "    get:\n      x-tenantbroker-probe: {object: purchase}\n"}, func(o probe.Object) any { return o.Name }, "purchase"},
		"settle and control as it is told": {path(`/orders/{orderId}/x: {get: {x-tenantbroker-probe: {settle: 3s, control: false}, responses: {}}}`), func(o probe.Object) any { return fmt.Sprint(o.Try[1].Settle, *o.Try[1].Control) }, "3s false"},
		"attempts as they are told":        {path(`/orders/{orderId}/x: {get: {x-tenantbroker-probe: {attempts: [{name: one}, {name: two, request: "GET /orders/{id}/y"}]}, responses: {}}}`), try(2), "two GET /orders/{id}/y"},
		"found, not made":                  {[]string{"    post:\n      requestBody: {content: {application/json: {schema: {$ref: \"#/components/schemas/Order\"}}}}\n      responses: {\"201\": {description: Made., content: {application/json: {schema: {$ref: \"#/components/schemas/Order\"}}}}}", "    get: {responses: {\"200\": {description: All., content: {application/json: {schema: {type: object, properties: {items: {type: array, items: {$ref: \"#/components/schemas/Order\"}}}}}}}}}", "    get:\n      responses", "    get:\n      x-tenantbroker-probe: {reveals: [/words]}\n      responses"}, func(o probe.Object) any { return o.Find.Request + " " + o.Find.ID + " " + o.Reveals[0] }, "GET /orders /items/0/orderId /words"},
		"aliases, as others write them":    {[]string{"info: {title", "x-a: &a {b: 1}\nx-c: {<<: *a}\ninfo: {title"}, func(o probe.Object) any { return o.Name }, "order"},
	} {
		t.Run(name, func(t *testing.T) {
			d := with(t, k.changes...)
			if got := fmt.Sprint(k.want(d.Objects[0])); got != k.is {
				t.Errorf("%s, want %s; %v", got, k.is, d.Notes)
			}
		})
	}
}

func try(n int) func(o probe.Object) any {
	return func(o probe.Object) any {
		if len(o.Try) <= n {
			return o.Try
		}
		return o.Try[n].Name + " " + o.Try[n].Request
	}
}

// What can't be derived is said, with what to do, and is not half there.
func TestNotes(t *testing.T) {
	path := func(is string) []string { return []string{"  # more\n", "  " + is + "\n"} }
	for name, k := range map[string]struct {
		changes []string
		want    string
		nothing bool
	}{
		"where the id is":                {[]string{`{description: Made., content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}`, `{description: Made.}`}, "has neither a property", true},
		"what tells an object":           {[]string{"words: {type: string}", "words: {type: string, format: uuid}"}, "name what does as reveals", true},
		"a word that is never shown":     {[]string{"    get:\n      responses: {\"200\": {description: One., content: {application/json: {schema: {$ref: \"#/components/schemas/Order\"}", "    get:\n      responses: {\"200\": {description: One., content: {application/json: {schema: {type: object, properties: {kind: {type: string}}}"}, "name what does as reveals", true},
		"a form":                         {[]string{"requestBody: {content: {application/json", "requestBody: {required: true, content: {multipart/form-data"}, "takes no JSON", true},
		"objects that have to be found":  {[]string{"    post:\n      requestBody: {content: {application/json: {schema: {$ref: \"#/components/schemas/Order\"}}}}\n", "    get:\n"}, "name them as reveals", true},
		"an object within another":       {path(`/orders/{orderId}/lines: {post: {responses: {}}}` + "\n  " + `/orders/{orderId}/lines/{line}: {get: {responses: {}}}`), "an object within another", false},
		"a parameter without an example": {path(`/orders/{orderId}/as/{form}: {parameters: [{name: form, in: path, required: true, schema: {type: string}}], get: {responses: {}}}`), "parameter form", false},
		"a number without an example":    {path(`/orders/{orderId}/x: {get: {parameters: [{name: n, in: query, required: true, schema: {type: integer}}], responses: {}}}`), "parameter n", false},
		"what it is about":               {path(`/health: {get: {responses: {}}}`), "which object it is about can't be told", false},
		"an object that is none":         {path(`/health: {get: {x-tenantbroker-probe: {object: nothing}, responses: {}}}`), `no object "nothing"`, false},
		"nothing in it names an object":  {path(`/orders/report: {post: {responses: {}}}`), "nothing in it names an object", false},
		"an extension with a typo":       {path(`/orders/{orderId}/x: {get: {x-tenantbroker-probe: {contrl: false}, responses: {}}}`), "contrl", false},
		"an attempt that is none":        {path(`/orders/{orderId}/x: {get: {x-tenantbroker-probe: {attempts: [{name: x, request: "GET //elsewhere"}]}, responses: {}}}`), "one slash", false},
		"a body that is no JSON":         {path(`/orders/{orderId}/x: {put: {requestBody: {required: true, content: {text/csv: {}}}, responses: {}}}`), "no JSON", false},
		"no server":                      {[]string{"https://small.example.com/api/", "/api"}, "base_url is to be filled in", false},
		"a server with a variable":       {[]string{"https://small.example.com/api/", "\"https://{x}.example.com\""}, "base_url is to be filled in", false},
		"shared, by a guess":             {[]string{"    get:\n", "    get:\n      security: []\n"}, "taken as shared", false},
		"a scope of operators":           {path(`/orders/{orderId}/x: {get: {security: [{s: [admin]}], responses: {}}}`), "tried without control", false},
		"a change to what was there":     {[]string{"    post:\n      requestBody: {content: {application/json: {schema: {$ref: \"#/components/schemas/Order\"}}}}\n      responses: {\"201\": {description: Made., content: {application/json: {schema: {$ref: \"#/components/schemas/Order\"}}}}}", "    get: {responses: {\"200\": {description: All., content: {application/json: {schema: {type: array, items: {$ref: \"#/components/schemas/Order\"}}}}}}}", "    get:\n      responses", "    delete: {responses: {}}\n    get:\n      x-tenantbroker-probe: {reveals: [/words]}\n      responses"}, "may_damage", false},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := derive(k.changes...)
			if errors.Is(err, openapi.ErrNothing) != k.nothing || err != nil && !k.nothing {
				t.Fatalf("%v: %+v", err, d)
			}
			if !slices.ContainsFunc(d.Notes, func(n openapi.Note) bool { return strings.Contains(n.Text, k.want) }) {
				t.Errorf("%q is not in %+v", k.want, d.Notes)
			}
			if text, err := d.YAML(); err != nil || !strings.Contains(string(text), "# Not derived:\n") || !strings.Contains(string(text), k.want) {
				t.Errorf("%v, %s", err, text)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	asked := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer elsewhere.Close()
	for name, k := range map[string]struct{ text, want string }{
		"nothing":               {"", "nothing is in it"},
		"no document":           {"a: b", "version"},
		"Swagger 2":             {"swagger: '2.0'\ninfo: {}\npaths: {}", "3.0 and 3.1"},
		"a later version":       {strings.Replace(small, "3.0.3", "3.2.0", 1), "3.0 and 3.1"},
		"no paths":              {"openapi: 3.0.3\ninfo: {title: x, version: '1'}\npaths: {}", "no paths"},
		"another's schema":      {strings.Replace(small, `"#/components/schemas/Order"`, `"`+elsewhere.URL+`/x.yaml#/Order"`, 1), "not followed"},
		"a file's schema":       {strings.Replace(small, `"#/components/schemas/Order"`, `"/etc/passwd"`, 1), "not followed"},
		"a file by its address": {strings.Replace(small, `"#/components/schemas/Order"`, `"file:///etc/passwd#/x"`, 1), "not followed"},
		"two documents":         {small + "\n---\n" + small, "more than one"},
	} {
		if _, err := openapi.Derive([]byte(k.text)); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: %v, want %q", name, err, k.want)
		}
	}
	if asked > 0 {
		t.Error("a reference was followed")
	}
}

func TestADocumentIsBounded(t *testing.T) {
	paths := func(n int) string {
		var more strings.Builder
		for i := range n - 2 {
			fmt.Fprintf(&more, "  /p%d: {}\n", i)
		}
		return strings.Replace(small, "  # more\n", more.String(), 1)
	}
	nested := func(n int) string { return small + "x-deep: " + strings.Repeat("[", n) + strings.Repeat("]", n) }
	values := func(n int) string { return small + "x-long: [" + strings.Repeat("1,", n) + "]" }
	for name, k := range map[string]struct{ fits, over string }{
		"bytes":  {small + "#" + strings.Repeat("x", openapi.MaxDocument-len(small)-1), small + "#" + strings.Repeat("x", openapi.MaxDocument-len(small))},
		"paths":  {paths(openapi.MaxPaths), paths(openapi.MaxPaths + 1)},
		"levels": {nested(63), nested(64)},
		"values": {values(190_000), values(200_000)},
	} {
		if _, err := openapi.Derive([]byte(k.fits)); err != nil {
			t.Errorf("%s at the bound: %v", name, err)
		}
		if _, err := openapi.Derive([]byte(k.over)); err == nil || errors.Is(err, openapi.ErrNothing) {
			t.Errorf("%s beyond the bound: %v", name, err)
		}
	}
}

// Schemas that contain themselves, and many that contain many, end.
func TestSchemasWithoutEnd(t *testing.T) {
	itself := strings.Replace(small, "        # properties", `        parent: {$ref: "#/components/schemas/Order"}`, 1)
	itself = strings.Replace(itself, "required: [kind]", "required: [kind, parent]", 1)
	var fan strings.Builder
	for i := range 9 {
		fmt.Fprintf(&fan, "    S%d: {type: object, required: [a, b, c], properties: {a: {$ref: \"#/components/schemas/S%d\"}, b: {$ref: \"#/components/schemas/S%d\"}, c: {$ref: \"#/components/schemas/S%d\"}}}\n", i, i+1, i+1, i+1)
	}
	fan.WriteString("    S9: {type: string}\n")
	many := strings.Replace(small, "        # properties\n", "        tree: {$ref: \"#/components/schemas/S0\"}\n"+fan.String(), 1)
	many = strings.Replace(many, "required: [kind]", "required: [kind, tree]", 1)
	for name, text := range map[string]string{"itself": itself, "many": many} {
		began := time.Now()
		d, err := openapi.Derive([]byte(text))
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: %s", name, took)
		}
		if err != nil && !errors.Is(err, openapi.ErrNothing) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text, err := d.YAML(); err != nil || len(text) > probe.MaxDescription {
			t.Errorf("%s: %v, %d bytes", name, err, len(text))
		}
	}
}

// JSON is read as it is written: with tabs, and letters in two halves.
func TestJSON(t *testing.T) {
	text := "{\n\t\"openapi\": \"3.1.0\",\n\t\"info\": {\"title\": \"\\ud83d\\ude00 Shop\", \"version\": \"1\"},\n\t\"paths\": {\"/x\": {\"post\": {\"responses\": {\"201\": {\"description\": \"\", \"headers\": {\"location\": {}}}}, \"requestBody\": {\"content\": {\"application/json\": {\"schema\": {\"type\": \"object\", \"properties\": {\"a\": {\"type\": [\"string\", \"null\"]}}}}}}}}, \"/x/{id}\": {\"get\": {\"responses\": {}}}}}"
	if !json.Valid([]byte(text)) {
		t.Fatal("no JSON")
	}
	d, err := openapi.Derive([]byte(text))
	if err != nil || d.Service != "shop" || len(d.Objects) != 1 {
		t.Errorf("%v, %+v", err, d)
	}
}

// FuzzDerive: what comes of a document is a description, or nothing; and it comes
// soon.
func FuzzDerive(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(leaky.OpenAPI))
	f.Add([]byte(`{"openapi":"3.1.0","info":{"title":"x","version":"1"},"paths":{"/x":{"post":{}},"/x/{id}":{"get":{}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		began := time.Now()
		d, err := openapi.Derive(data)
		if took := time.Since(began); took > 30*time.Second {
			t.Fatalf("%s", took)
		}
		if d == nil {
			return
		}
		text, yamlErr := d.YAML()
		if yamlErr != nil {
			t.Fatal(yamlErr)
		}
		if err != nil || len(text) > probe.MaxDescription {
			return
		}
		// The place is for the person to see to: http, for one, may be refused.
		text = []byte(strings.Replace(string(text), "\nbase_url: ", "\nbase_url: https://service.example.com #", 1))
		if _, err := probe.ParseDescription(text); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	})
}

// What an operation would do to all that a tenant has is for a person to decide.
func TestNothingThatChangesManyIsDerived(t *testing.T) {
	ids := "requestBody: {content: {application/json: {schema: {type: object, required: [ids], properties: {ids: {type: array, items: {type: string}}}}}}}"
	for _, method := range []string{"delete", "put", "patch"} {
		for _, path := range []string{"/orders", "/orders/bulk"} {
			operation := "    " + method + ":\n      " + ids + "\n      responses: {\"204\": {description: Done.}}\n"
			at, text := "  # more\n", "  "+path+":\n"+operation+"  # more\n"
			if path == "/orders" {
				at, text = "  /orders:\n", "  /orders:\n"+operation
			}
			draft := with(t, at, text)
			for _, a := range draft.Objects[0].Try {
				if upper := strings.ToUpper(method); strings.HasPrefix(a.Request, upper+" ") {
					t.Errorf("%s", a.Request)
				}
			}
			if !slices.ContainsFunc(draft.Notes, func(n openapi.Note) bool {
				return strings.EqualFold(n.Where, method+" "+path) && strings.Contains(n.Text, "more than one object")
			}) {
				t.Errorf("%s %s: no note: %v", method, path, draft.Notes)
			}
		}
	}
}
