package openapi_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
	"github.com/tenantbroker/tenantbroker/internal/probe/openapi"
)

// The attempts, of those that come of the sample's document, that each leak may
// be found by; the first has to find it. An object is before the slash.
var expected = map[leaky.Leak][]string{
	leaky.Read:            {"order/read", "order/revoked", "order/print", "customer/read", "order/plant", "customer/plant"},
	leaky.ListFilter:      {"order/list"},
	leaky.IDs:             {"order/ids"},
	leaky.Existence:       {"order/read", "order/revoked", "order/print", "order/summary", "order/history", "order/payment", "order/full", "order/update", "order/amend", "customer/read"},
	leaky.CacheKey:        {"order/summary"},
	leaky.CacheKeyBare:    {"customer/in-order-summary"},
	leaky.IgnoredID:       {"order/history"},
	leaky.Export:          {"order/export"},
	leaky.SearchIndex:     {"order/search"},
	leaky.HeaderBelieved:  {"order/list"},
	leaky.Batch:           {"order/batch"},
	leaky.StalePermission: {"order/revoked", "order/print"},
	leaky.Join:            {"customer/in-order-full"},
	leaky.AdminRoute:      {"order/admin-orders"},
	leaky.ErrorMessage:    {"order/amend"},
	leaky.OwnerNamed:      {"order/read", "order/revoked", "order/print", "order/summary", "order/history", "order/payment", "order/full", "order/update", "order/amend", "customer/read", "notice/update"},
	leaky.ETag:            {"order/read", "order/revoked", "order/print", "customer/read"},
	leaky.Update:          {"order/update", "notice/update"},
	leaky.Delete:          {"order/delete", "customer/delete", "notice/delete"},
	leaky.NoToken:         {"order/print"},
	leaky.SubRoute:        {"order/payment"},
	leaky.OpenSubRoute:    {"order/payment"},
	leaky.PlantedBody:     {"order/plant", "customer/plant", "ticket/plant"},
	leaky.PlantedHeader:   {"order/plant", "customer/plant", "customer/plant-orders"},
	leaky.PlantedBelow:    {"customer/plant-orders"},
}

// What proves nothing where a leak is on: the cache keeps what an attempt before
// put there, so that not even A is shown its own. Nor can it be told whose a customer
// is that B made, where A is shown everybody's.
var unproven = map[leaky.Leak]string{leaky.CacheKeyBare: "order/summary", leaky.Read: "customer/plant"}

func TestTheSamplesDocumentFindsItsLeaksAndAccusesNothingElse(t *testing.T) {
	broker := brokertest.Start(t)
	broker.Tenants("acme", "globex")
	broker.Service("orders")
	broker.Worker("probe", "orders", "orders:read", "acme", "globex")
	tokens := broker.Verifier("orders")
	always := func(tenant string) probe.TokenSource {
		token := broker.TokenFor("probe", "orders", tenant)
		return func(context.Context) (credential.Secret, error) { return credential.NewSecret([]byte(token)), nil }
	}
	a, b := always("acme"), always("globex")
	run := func(t *testing.T, leaks ...leaky.Leak) *probe.Report {
		t.Helper()
		service, err := leaky.New(tokens, leaks...)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(service)
		t.Cleanup(server.Close)
		report, err := probe.Run(t.Context(), probe.Config{Description: derived(t, server.URL), TokenA: a, TokenB: b})
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Left) > 0 {
			t.Errorf("left: %v", report.Left)
		}
		return report
	}
	if report := run(t); report.Verdict != probe.Clean {
		t.Errorf("a clean service: %s", report.Verdict)
		for _, c := range report.Cases {
			if c.Verdict != probe.Clean {
				t.Errorf("%+v", c)
			}
		}
	}
	if len(expected) != len(leaky.All) {
		t.Fatalf("%d leaks, %d expected", len(leaky.All), len(expected))
	}
	for _, leak := range leaky.All {
		t.Run(string(leak), func(t *testing.T) {
			t.Parallel()
			found := false
			for _, c := range run(t, leak).Cases {
				by := c.Object + "/" + c.Attempt
				found = found || c.Verdict == probe.Leak && by == expected[leak][0]
				if by == unproven[leak] && c.Verdict != probe.Clean {
					continue
				}
				if c.Verdict != probe.Clean && (c.Verdict != probe.Leak || !slices.Contains(expected[leak], by)) {
					t.Errorf("%s as %s: %v", by, c.As, c.Findings)
				}
			}
			if !found {
				t.Errorf("not found by %s", expected[leak][0])
			}
		})
	}
}

// derived is the description that comes of the sample's document, as a person
// would complete it.
func derived(t *testing.T, base string) *probe.Description {
	t.Helper()
	draft, err := openapi.Derive([]byte(leaky.OpenAPI))
	if err != nil {
		t.Fatal(err)
	}
	text, err := draft.YAML()
	if err != nil {
		t.Fatal(err)
	}
	completed := strings.NewReplacer("http://127.0.0.1:1", base, "probe-a", "acme", "probe-b", "globex", "objects:\n", "limits: {per_second: 1000}\nobjects:\n")
	d, err := probe.ParseDescription([]byte(completed.Replace(string(text))))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return d
}
