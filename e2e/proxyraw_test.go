package e2e

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"testing"
)

// questions are what an example has its proxy ask, found by an expression.
func questions(t *testing.T, file, expression string) (all []string) {
	t.Helper()
	raw, err := os.ReadFile("../deploy/examples/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(expression).FindAllSubmatch(raw, -1) {
		all = append(all, string(found[1]))
	}
	if len(all) == 0 {
		t.Fatalf("%s asks nothing", file)
	}
	return all
}

// Envoy's ext_authz over HTTP asks with the client's method and host, the
// client's path and query behind path_prefix or replaced by path_override,
// Content-Length: 0, the headers that are allowed (several of one name joined by a
// comma), and its own. Envoy itself doesn't run here.
func TestEnvoysQuestions(t *testing.T) {
	w, tokens := newCheckWorld(t, 2)
	address := w.Internal().CheckAddress().String()
	prefix := questions(t, "envoy.yaml", `# +path_prefix: "([^"]+)"`)[0]
	overrides := questions(t, "envoy.yaml", `\n +path_override: "([^"]+)"`)
	const own = "x-envoy-internal: true\r\nx-forwarded-for: 127.0.0.1\r\nx-envoy-expected-rq-timeout-ms: 2000\r\n"
	ask := func(method, target, headers string) (int, string) {
		answers, err := exchange(t.Context(), address, fmt.Sprintf("%s %s HTTP/1.1\r\nhost: orders.example\r\ncontent-length: 0\r\n%s%s\r\n", method, target, headers, own), 1)
		if err != nil {
			t.Fatalf("%s %s: %v", method, target, err)
		}
		return answers[0].StatusCode, answers[0].Header.Get("X-Tenant")
	}
	good := "authorization: Bearer " + tokens["t00"] + "\r\n"
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
		for path, want := range map[string]int{
			"/t/t00/orders": 200, "/t/t00/orders?x=1&tenant=t01&uri=/t/t01/": 200, "/t/t00/a%20b": 200,
			"/t/t01/orders": 403, "/t/t01/orders?&uri=/t/t00/orders": 403, "/t/t00/../t01/orders": 403, "/t/t01/..%2ft00/": 403, "/t/t00%2f": 403,
			"/t/": 403, "/": 403, "*": 403, "/t/t00/\xff": 403,
		} {
			if status, tenant := ask(method, prefix+path, good); status != want || (tenant == "t00") != (want == 200) {
				t.Errorf("%s, path_prefix, %s: %d %q, want %d", method, path, status, tenant, want)
			}
			for _, override := range overrides {
				if status, tenant := ask(method, override, good+"x-forwarded-uri: "+path+"\r\n"); status != want || (tenant == "t00") != (want == 200) {
					t.Errorf("%s, %s, %s: %d %q, want %d", method, override, path, status, tenant, want)
				}
			}
		}
	}
	w.Worker("reader", orders, read, "t00")
	reader := "authorization: Bearer " + w.mustToken(w.form("reader", "t00")).AccessToken + "\r\nx-forwarded-uri: /t/t00/orders\r\n"
	if len(overrides) != 2 {
		t.Fatalf("%q", overrides)
	}
	for i, want := range []int{200, 403} { // to read, to write
		if status, _ := ask("GET", overrides[i], reader); status != want {
			t.Errorf("%s, who may read: %d", overrides[i], status)
		}
	}
	for name, headers := range map[string]string{
		"none": "", "two, joined": "authorization: Bearer " + tokens["t00"] + ",Bearer " + tokens["t01"] + "\r\n", "two": good + good,
	} {
		if status, _ := ask("GET", prefix+"/t/t00/orders", headers); status != http.StatusUnauthorized {
			t.Errorf("authorization: %s: %d", name, status)
		}
	}
	// A prefix that isn't the example's, and a request with its body.
	for _, request := range []string{"/v1/check", "/v1/check/", "/v1/check?audience=orders&tenant_at=/t/{tenant}", "/v1/check?audience=orders&uri="} {
		if status, _ := ask("GET", request+"/t/t00/orders", good); status == http.StatusOK {
			t.Errorf("path_prefix %s: it passes", request)
		}
	}
	status, err := statusOf(t.Context(), address, "POST "+prefix+"/t/t00/orders HTTP/1.1\r\nhost: x\r\nx-envoy-auth-partial-body: false\r\ncontent-length: 2\r\n"+good+"\r\n{}")
	if err != nil || status != "400" {
		t.Errorf("with_request_body: %s %v", status, err)
	}
}
