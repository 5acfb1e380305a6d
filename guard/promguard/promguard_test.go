package promguard_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
	"github.com/tenantbroker/tenantbroker/guard/promguard"
	"github.com/tenantbroker/tenantbroker/internal/alarms"
)

func TestCrossingsAreCountedFromTheStart(t *testing.T) {
	issuer := guardtest.NewIssuer(t)
	g, err := guard.New(guard.Config{Verifier: issuer.Verifier(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(promguard.New(g))
	shown := func() string {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, f := range families {
			text += strings.Join(strings.Fields(f.String()), " ") + "\n"
		}
		return text
	}
	if !strings.Contains(shown(), `name:"tenantbroker_guard_crossings_total" help:"Denied: somebody reached for another tenant." type:COUNTER metric:{counter:{value:0}}`) {
		t.Errorf("an alarm on an increase would miss the first:\n%s", shown())
	}
	ctx, err := g.Enter(t.Context(), issuer.Token("acme"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := guard.Check(ctx, guard.Resource{Tenant: credential.MustTenant("globex"), Type: "order", ID: "secret-7"}); !errors.Is(err, guard.ErrCrossing) {
		t.Fatal(err)
	}
	if err := guard.Check(ctx, guard.Resource{Tenant: credential.MustTenant("acme"), Type: "order", ID: "8"}); err != nil {
		t.Fatal(err)
	}
	got := shown()
	for _, want := range []string{
		`metric:{counter:{value:1}}`,
		`label:{name:"decision" value:"deny"} label:{name:"reason" value:"crossing"} counter:{value:1}`,
		`label:{name:"decision" value:"allow"} label:{name:"reason" value:"same_tenant"} counter:{value:1}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	for _, never := range []string{"acme", "globex", "secret-7", "worker"} {
		if strings.Contains(got, never) {
			t.Errorf("%s is in the metrics", never)
		}
	}
}

// A process may have several guards, such as one per audience.
func TestTwoGuardsInOneProcess(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for _, audience := range []string{"orders", "billing"} {
		g, err := guard.New(guard.Config{Verifier: guardtest.NewIssuer(t).Verifier()})
		if err != nil {
			t.Fatal(err)
		}
		if err := prometheus.WrapRegistererWith(prometheus.Labels{"audience": audience}, registry).Register(promguard.New(g)); err != nil {
			t.Error(err)
		}
	}
	if families, err := registry.Gather(); err != nil || len(families) == 0 || len(families[0].GetMetric()) != 2 {
		t.Errorf("%v %v", families, err)
	}
}

func TestAlarmsAreAboutWhatIsShown(t *testing.T) {
	issuer := guardtest.NewIssuer(t)
	g, err := guard.New(guard.Config{Verifier: issuer.Verifier(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(promguard.New(g))
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	n, problems, err := alarms.Problems(os.DirFS("../.."), "deploy/prometheus/services.rules.yaml", rec.Body.String())
	if err != nil || len(problems) > 0 || n != 3 {
		t.Errorf("%d alarms: %v %v", n, problems, err)
	}
}
