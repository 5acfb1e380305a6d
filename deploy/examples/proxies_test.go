// Package examples holds the configurations of proxies to what keeps tenants
// apart in them. nginx's and Traefik's are tried in a real nginx and a real
// Traefik (e2e); there is no package of Envoy to try, so here each setting that a
// crossing hangs on is held by itself.
package examples

import (
	_ "embed"
	"iter"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

//go:embed envoy.yaml
var envoy []byte

//go:embed traefik.yaml
var traefik []byte

//go:embed nginx.conf
var nginx string

// holds compares a part of a configuration with all that it may say.
func holds(t *testing.T, what string, got any, want string) {
	t.Helper()
	var wanted any
	if err := yaml.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if !reflect.DeepEqual(got, wanted) {
		is, err := yaml.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s is\n%s\nand must be\n%s", what, is, want)
	}
}

// at goes down a document, by names and places in lists.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for i, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			if l, _ := v.([]any); step < len(l) {
				v = l[step]
			} else {
				v = nil
			}
		}
		if v == nil {
			t.Fatalf("nothing at %v", path[:i+1])
		}
	}
	return v
}

// alone returns the only member of a list: another would be a way in where nobody asks.
func alone(t *testing.T, v any, list string) any {
	t.Helper()
	if all, _ := at(t, v, list).([]any); len(all) != 1 {
		t.Fatalf("%d %s", len(all), list)
	}
	return at(t, v, list, 0)
}

func parsed(t *testing.T, source []byte) (v any) {
	t.Helper()
	if err := yaml.Unmarshal(source, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEnvoyKeepsTenantsApart(t *testing.T) {
	resources := at(t, parsed(t, envoy), "static_resources")
	listener := alone(t, resources, "listeners")
	manager, _ := at(t, alone(t, alone(t, listener, "filter_chains"), "filters"), "typed_config").(map[string]any)
	filters, _ := at(t, manager, "http_filters").([]any)
	delete(manager, "http_filters")
	delete(manager, "stat_prefix") // a name
	holds(t, "how Envoy reads requests", any(manager), `
"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
normalize_path: true
merge_slashes: true
path_with_escaped_slashes_action: REJECT_REQUEST
common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}
route_config:
  virtual_hosts:
    - name: orders
      domains: ["*"]
      routes:
        - match: {prefix: "/t/", headers: [{name: ":method", string_match: {safe_regex: {regex: "GET|HEAD"}}}]}
          route: {cluster: orders}
          typed_per_filter_config:
            may-write: {"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true}
        - match: {prefix: "/t/"}
          route: {cluster: orders}
          typed_per_filter_config:
            may-read: {"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true}
      request_headers_to_remove: [x-forwarded-uri, authorization]
`)
	if len(filters) != 4 {
		t.Fatalf("%d filters", len(filters))
	}
	holds(t, "the first filter", filters[0], `
name: envoy.filters.http.header_mutation
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
  mutations:
    request_mutations:
      - remove: x-tenant
      - remove: x-subject
      - remove: x-client-id
      - remove: x-scope
      - remove: x-tenant-id
      - remove: x-original-url
      - remove: x-original-uri
      - remove: x-rewrite-url
      - remove: x-forwarded-prefix
      - remove: x-http-method-override
      - append:
          header: {key: x-forwarded-uri, value: "%REQ(:PATH)%"}
          append_action: OVERWRITE_IF_EXISTS_OR_ADD
`)
	for i, name := range []string{"read", "write"} {
		holds(t, "who asks for "+name, filters[i+1], `
name: may-`+name+`
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
  transport_api_version: V3
  failure_mode_allow: false
  clear_route_cache: false
  http_service:
    server_uri: {uri: "http://127.0.0.1:9091", cluster: broker, timeout: 2s}
    path_override: "/v1/check?audience=orders&scope=orders:`+name+`&tenant_at=/t/{tenant}"
    authorization_response:
      allowed_upstream_headers:
        patterns: [{exact: x-tenant}, {exact: x-subject}, {exact: x-client-id}, {exact: x-scope}]
      allowed_client_headers:
        patterns: [{exact: www-authenticate}]
  allowed_headers:
    patterns: [{exact: authorization}, {exact: x-forwarded-uri}]
`)
	}
	holds(t, "the last filter", filters[3], `
name: envoy.filters.http.router
typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`)
}

func TestTraefikKeepsTenantsApart(t *testing.T) {
	config := parsed(t, traefik)
	holds(t, "what Traefik routes", at(t, config, "http", "routers"), `
orders-read:
  entryPoints: [web]
  rule: PathPrefix(`+"`/t/`) && (Method(`GET`) || Method(`HEAD`)"+`)
  middlewares: [client-says, may-read, checked]
  service: orders
orders-write:
  entryPoints: [web]
  rule: PathPrefix(`+"`/t/`"+`)
  middlewares: [client-says, may-write, checked]
  service: orders
`)
	for _, name := range []string{"read", "write"} {
		holds(t, "who asks for "+name, at(t, config, "http", "middlewares", "may-"+name), `
forwardAuth:
  address: "http://127.0.0.1:9091/v1/check?audience=orders&scope=orders:`+name+`&tenant_at=/t/{tenant}"
  trustForwardHeader: false
  authRequestHeaders: [Authorization]
  authResponseHeaders: [X-Tenant, X-Subject, X-Client-Id, X-Scope]
  maxResponseBodySize: 4096
`)
	}
}

// What nginx's example takes from a request, since frameworks or the service
// believe it, the others take too.
func TestAllTakeTheSameHeadersAway(t *testing.T) {
	var taken []string
	for _, line := range regexp.MustCompile(`proxy_set_header (X-[A-Za-z-]+) `).FindAllStringSubmatch(nginx, -1) {
		taken = append(taken, line[1])
	}
	if len(taken) < 11 {
		t.Fatalf("nginx takes %q", taken)
	}
	says, _ := at(t, parsed(t, traefik), "http", "middlewares", "client-says", "headers", "customRequestHeaders").(map[string]any)
	removed := map[string]bool{}
	for name, value := range says {
		removed[strings.ToLower(name)] = value == "" // which has Traefik take it away
	}
	for _, name := range taken {
		for spelling := range spellings(name) { // as a CGI-like service would read it too
			if !removed[strings.ToLower(spelling)] {
				t.Errorf("Traefik leaves %s", spelling)
			}
		}
		written := name == "X-Forwarded-Uri" // over the client's, and taken away after the question
		if name := strings.ToLower(name); !written && !strings.Contains(string(envoy), "remove: "+name+"\n") {
			t.Errorf("Envoy leaves %s", name)
		}
	}
}

// spellings are a header's name with each of its dashes as it is, or an underscore.
func spellings(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		dashes := strings.Count(name, "-")
		for set := range 1 << dashes {
			spelled, seen := []byte(name), 0
			for i := range spelled {
				if spelled[i] == '-' {
					if set>>seen&1 == 1 {
						spelled[i] = '_'
					}
					seen++
				}
			}
			if !yield(string(spelled)) {
				return
			}
		}
	}
}
