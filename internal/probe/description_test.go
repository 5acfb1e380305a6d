package probe_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
)

const small = `
service: orders
base_url: https://orders.example.com/api
tenants:
  a: {tenant: acme, token_file: a.token}
  b: {tenant: globex, token_env: B_TOKEN}
objects:
  - name: order
    create: {request: POST /orders, body: {note: "{witness}"}, id: /id}
    read: GET /orders/{id}
    try:
      - {name: read, request: "GET /orders/{id}"}
`

func TestADescriptionHasDefaults(t *testing.T) {
	d, err := probe.ParseDescription([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	want := probe.Limits{Requests: 1000, PerSecond: 20, Duration: 5 * time.Minute, Timeout: 10 * time.Second, Body: 1 << 20}
	if d.Limits != want || fmt.Sprint(d.Forge.Headers) != "[X-Tenant X-Tenant-Id]" {
		t.Errorf("limits %+v, forge %+v", d.Limits, d.Forge)
	}
}

func TestADescriptionIsRefused(t *testing.T) {
	for name, k := range map[string]struct{ old, now, want string }{
		"a field that isn't known":       {"service:", "sevrice: x\nservice:", "sevrice"},
		"two documents":                  {"\nservice", "---\nservice: x\n---\nservice", ""},
		"no service":                     {"service: orders", "service: ''", "service"},
		"a user in the URL":              {"https://orders", "https://u:p@orders", "base_url"},
		"tokens unencrypted":             {"https://orders", "http://orders", "unencrypted"},
		"another scheme":                 {"https://orders", "ftp://orders", "neither https nor http"},
		"a query in the URL":             {".com/api", ".com/api?x=1", "base_url"},
		"the same tenant twice":          {"globex", "acme", "the same"},
		"a tenant that is none":          {"globex", "'*'", ""},
		"two sources of a token":         {"token_env: B_TOKEN", "token_env: B_TOKEN, token_file: x", "exactly one"},
		"no source of a token":           {"globex, token_env: B_TOKEN", "globex", "exactly one"},
		"half a broker":                  {"token_env: B_TOKEN", "broker: {issuer: 'https://b.example.com', account: x}", "broker needs"},
		"another host":                   {"GET /orders/{id}\"", "GET //evil.example.com/{id}\"", "one slash"},
		"a whole URL":                    {"GET /orders/{id}\"", "GET https://evil.example.com/{id}\"", "one slash"},
		"a way up":                       {"GET /orders/{id}\"", "GET /orders/../{id}\"", "segment"},
		"a way up that is escaped":       {"GET /orders/{id}\"", "GET /orders/%2e%2e/{id}\"", "segment"},
		"a method that is none":          {"GET /orders/{id}\"", "STEAL /orders/{id}\"", "not a request"},
		"a name that stands for nothing": {"GET /orders/{id}\"", "GET /orders/{ident}\"", "{ident}"},
		"the witness in an attempt":      {"GET /orders/{id}\"", "GET /orders?q={witness}\"", "{witness}"},
		"a token in a header":            {"\"GET /orders/{id}\"", "\"GET /orders/{id}\", headers: {authorization: x}", "Authorization"},
		"a header of two lines":          {"\"GET /orders/{id}\"", "\"GET /orders/{id}\", headers: {x-a: \"a\\nb\"}", "one line"},
		"nothing that tells the object":  {"{witness}", "{marker}", "nothing would tell"},
		"a pointer that is none":         {"id: /id", "id: id", "JSON pointer"},
		"neither made nor found":         {"    create: {request: POST /orders, body: {note: \"{witness}\"}, id: /id}\n", "", "exactly one of create and find"},
		"reading without an id":          {"read: GET /orders/{id}", "read: GET /orders", "read is not"},
		"an attempt with a subject":      {"name: read,", "name: read, as: a,", "as is a or b"},
		"an attempt without a name":      {"name: read,", "name: '',", "not a name"},
		"too many requests":              {"objects:", "limits: {requests: 100001}\nobjects:", "limits.requests"},
		"too many in a second":           {"objects:", "limits: {per_second: 1001}\nobjects:", "limits.per_second"},
		"answers without bound":          {"objects:", "limits: {body: 16777217}\nobjects:", "limits.body"},
		"a negative limit":               {"objects:", "limits: {requests: -1}\nobjects:", "limits.requests"},
		"hours":                          {"objects:", "limits: {duration: 61m}\nobjects:", "limits.duration"},
		"no patience":                    {"objects:", "limits: {timeout: 61s}\nobjects:", "limits.timeout"},
		"an anchor":                      {"service: orders", "service: &s orders", "anchors"},
		"a number that is none":          {"{note: \"{witness}\"}", "{note: \"{witness}\", n: .nan}", "JSON has not"},
		"a date":                         {"{note: \"{witness}\"}", "{note: \"{witness}\", n: 2026-01-01}", "JSON has not"},
		"no name to forge":               {"objects:", "forge: {body: ['']}\nobjects:", "forge"},
		"a long name to forge":           {"objects:", "forge: {query: [" + strings.Repeat("x", 65) + "]}\nobjects:", "1 to 64 bytes"},
		"a name to forge of two lines":   {"objects:", "forge: {body: [\"a\\nb\"]}\nobjects:", "one line"},
		"eleven places to forge":         {"objects:", "forge: {headers: [a, b, c, d], query: [a, b, c, d], body: [a, b, c]}\nobjects:", "over 10 places"},
		"the tenant of an attempt":       {"\"GET /orders/{id}\"", "\"GET /orders/{id}?t={tenant}\"", "{tenant}"},
		"planting what is found":         {"create: {request: POST /orders, body: {note: \"{witness}\"}, id: /id}", "plant: true\n    reveals: [/note]\n    find: {request: GET /orders, id: /items/0/id}", "plant goes with create"},
		"a wait without end":             {"\"GET /orders/{id}\"", "\"GET /orders/{id}\", wait: 61s", "wait"},
		"a settling without end":         {"\"GET /orders/{id}\"", "\"GET /orders/{id}\", settle: 61s", "settle"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(small, k.old) {
				t.Fatalf("%q is not in it", k.old)
			}
			_, err := probe.ParseDescription([]byte(strings.Replace(small, k.old, k.now, 1)))
			if err == nil || !strings.Contains(err.Error(), k.want) {
				t.Errorf("%v, want %q", err, k.want)
			}
		})
	}
}

// What was there before belongs to somebody: every request of an attempt counts.
func TestWhatWasFoundIsNotDamagedUnasked(t *testing.T) {
	found := strings.Replace(small, `create: {request: POST /orders, body: {note: "{witness}"}, id: /id}`,
		"find: {request: GET /orders, id: /items/0/id}\n    reveals: [/note]", 1)
	with := func(text, attempt string) error {
		_, err := probe.ParseDescription([]byte(strings.Replace(text, `{name: read, request: "GET /orders/{id}"}`, "{name: it, "+attempt+"}", 1)))
		return err
	}
	for attempt, harms := range map[string]bool{
		`request: "GET /orders/{id}"`:                                                                              false,
		`request: "QUERY /orders/{id}", body: {id: "{id}"}`:                                                        false,
		`request: POST /exports`:                                                                                   false,
		`request: POST /exports, save: {e: /id}, then: [{request: "DELETE /exports/{e}"}]`:                         false,
		`request: POST /exports, save: {e: /id}, cleanup: [{request: "DELETE /exports/{e}"}]`:                      false,
		`request: POST /orders/batch, body: {ids: ["{id}", "{own}"]}, changes: false`:                              false,
		`request: "GET /orders/{id}", then: [{request: "DELETE /orders/{id}/lock"}], changes: false`:               false,
		`request: "GET /orders", save: {o: /items/0/id}, then: [{request: "DELETE /orders/{o}"}]`:                  true,
		`request: "DELETE /orders/{id}"`:                                                                           true,
		`request: "PUT /orders/{id}", body: {a: 1}`:                                                                true,
		`request: "PATCH /orders", body: {a: 1}`:                                                                   true,
		`request: "POST /orders/{id}/cancel"`:                                                                      true,
		`request: POST /orders/batch, body: {ids: ["{id}", "{own}"]}`:                                              true,
		`request: POST /orders/cancel, headers: {X-Order: "{id}"}`:                                                 true,
		`request: "GET /orders/{id}/cancel", changes: true`:                                                        true,
		`request: "GET /orders/{id}", then: [{request: "DELETE /orders/{id}"}]`:                                    true,
		`request: "GET /orders/{id}", then: [{request: "GET /orders/{id}"}, {request: "POST /orders/{id}/close"}]`: true,
		`request: "GET /orders/{id}", cleanup: [{request: "DELETE /orders/{id}"}]`:                                 true,
		`request: "GET /orders/{id}", before: [{as: a, request: "DELETE /orders/{id}"}]`:                           true,
		`request: "GET /orders/{id}", before: [{as: b, request: "PUT /orders/{own}"}]`:                             true,
	} {
		err := with(found, attempt)
		if harms != (err != nil && strings.Contains(err.Error(), "may_damage")) || !harms && err != nil {
			t.Errorf("%s: %v", attempt, err)
		}
		if err := with(strings.Replace(found, "    read:", "    may_damage: true\n    read:", 1), attempt); err != nil {
			t.Errorf("%s: may damage: %v", attempt, err)
		}
		if err := with(small, attempt); err != nil {
			t.Errorf("%s: on what the probe makes: %v", attempt, err)
		}
	}
}

func TestATokenOfTheEnvironmentIsNotRenewable(t *testing.T) {
	for text, want := range map[string]string{
		small: "tenants.b", strings.Replace(small, "token_file: a.token", "token_env: A", 1): "tenants.a",
		strings.Replace(small, "token_env: B_TOKEN", "token_file: b.token", 1): "",
	} {
		d, err := probe.ParseDescription([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Renewable(); (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestADescriptionIsBounded(t *testing.T) {
	attempts := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "      - {name: read%d, request: \"GET /orders/{id}\"}\n", i)
		}
		return strings.Replace(small, "      - {name: read, request: \"GET /orders/{id}\"}\n", b.String(), 1)
	}
	objects := func(n int) string {
		head, one, _ := strings.Cut(small, "objects:\n")
		all := head + "objects:\n"
		for i := range n {
			all += strings.Replace(one, "name: order", fmt.Sprintf("name: order%d", i), 1)
		}
		return all
	}
	steps := func(n int) string {
		return strings.Replace(small, `"GET /orders/{id}"}`, `"GET /orders/{id}", then: [`+strings.Repeat("{request: GET /x},", n)+"]}", 1)
	}
	// Beside the list, small has 43 values, the document among them.
	body := func(is string) string { return strings.Replace(small, "{note: \"{witness}\"}", is, 1) }
	keys := func(n int) string {
		all := "a: \"{witness}\""
		for i := range n - 1 {
			all += fmt.Sprintf(", k%d: 1", i)
		}
		return body("{" + all + "}")
	}
	for name, k := range map[string]struct {
		fits, over string
	}{
		"keys":     {keys(200), keys(201)},
		"values":   {body("[\"{witness}\"" + strings.Repeat(",1", 20_000-43) + "]"), body("[\"{witness}\"" + strings.Repeat(",1", 20_000-42) + "]")},
		"attempts": {attempts(probe.MaxAttempts), attempts(probe.MaxAttempts + 1)},
		"objects":  {objects(probe.MaxObjects), objects(probe.MaxObjects + 1)},
		"steps":    {steps(probe.MaxSteps), steps(probe.MaxSteps + 1)},
		"bytes":    {small + "#" + strings.Repeat("x", probe.MaxDescription-len(small)-1), small + "#" + strings.Repeat("x", probe.MaxDescription-len(small))},
	} {
		if _, err := probe.ParseDescription([]byte(k.fits)); err != nil {
			t.Errorf("%s at the bound: %v", name, err)
		}
		if _, err := probe.ParseDescription([]byte(k.over)); err == nil {
			t.Errorf("%s beyond the bound pass", name)
		}
	}
}

// FuzzParseDescription: what is accepted is within the bounds, and stays at the
// service; whatever comes in, it is read at once.
func FuzzParseDescription(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(leaky.Description))
	f.Add([]byte("service: x\nobjects: [{try: [{body: &a [*a]}]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		began := time.Now()
		d, err := probe.ParseDescription(data)
		if took := time.Since(began); took > 30*time.Second {
			t.Fatalf("%s", took)
		}
		if err != nil {
			return
		}
		if d.Tenants.A.Tenant == d.Tenants.B.Tenant || d.Limits.Requests > 100_000 || len(d.Objects) > probe.MaxObjects {
			t.Fatalf("accepted: %+v", d)
		}
		for _, step := range d.Plan() {
			if _, target, _ := strings.Cut(step.Request, " "); !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") || strings.ContainsAny(target, "\r\n") {
				t.Fatalf("accepted: %q", step.Request)
			}
		}
	})
}
