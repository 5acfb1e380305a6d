package e2e

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

// What the examples of Traefik and Envoy ask, sent as they send it: a path in
// X-Forwarded-Uri, and the client's method.
func TestTheExamplesOfProxiesAskWhatTheBrokerAnswers(t *testing.T) {
	w, tokens := newCheckWorld(t, 2)
	for file, expression := range map[string]string{
		"traefik.yaml": `address: "http://127\.0\.0\.1:9091/v1/check(\?[^"]+)"`,
		"envoy.yaml":   `path_override: "/v1/check(\?[^"]+)"`,
	} {
		raw, err := os.ReadFile("../deploy/examples/" + file)
		if err != nil {
			t.Fatal(err)
		}
		query := question(t, file, expression)
		for path, want := range map[string]int{"/t/t00/orders?x=1": 200, "/t/t01/orders": 403, "/t/t00/../t01/orders": 403, "/t/": 403, "": 403} {
			// As both write a header: their own value, over the client's.
			r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, w.checkURL()+query, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+tokens["t00"])
			r.Header.Set("X-Forwarded-Uri", path)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s at %q: %d, want %d", file, path, resp.StatusCode, want)
			}
		}
		// Over what the client sent, each header that the service believes.
		for _, name := range []string{"X-Tenant", "X-Subject", "X-Client-Id", "X-Scope"} {
			text := string(raw)
			if file == "envoy.yaml" {
				name = strings.ToLower(name)
				if !strings.Contains(text, "remove: "+name) || !strings.Contains(text, "{exact: "+name+"}") {
					t.Errorf("%s leaves the client's %s", file, name)
				}
				continue
			}
			if !strings.Contains(text, name+`: ""`) || !strings.Contains(text, name+",") && !strings.Contains(text, name+"]") {
				t.Errorf("%s leaves the client's %s", file, name)
			}
		}
	}
}
