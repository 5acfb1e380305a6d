package guard_test

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// order is what the service stores: it knows whose it is.
type order struct {
	ID     string
	Tenant credential.Tenant
	Note   string
}

// orders is the service's store.
type orders map[string]order

// ServeHTTP finds an order by its id, and opens it to its own tenant only. Whose
// it is says the order, never the request.
func (o orders) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	found, ok := o[r.PathValue("id")]
	if !ok {
		guard.Refuse(w, r, guard.ErrNotFound) // as another tenant's
		return
	}
	err := guard.Check(r.Context(), guard.Resource{Tenant: found.Tenant, Type: "order", ID: found.ID})
	if err != nil {
		guard.Refuse(w, r, err)
		return
	}
	_, _ = w.Write([]byte(found.Note))
}

func Example() {
	ctx := context.Background()
	tokens, err := verifier.New(ctx, verifier.Config{Issuer: "https://broker.example", Audience: "https://orders.example"})
	if err != nil {
		slog.Error("no tokens can be verified", "error", err)
		return
	}
	defer tokens.Close()
	g, err := guard.New(guard.Config{Verifier: tokens}) // tokens: a *verifier.Verifier
	if err != nil {
		slog.Error("no guard", "error", err)
		return
	}
	read := guard.Route{
		Scopes:    credential.MustScopes("orders:read"),
		Tenants:   []guard.TenantSource{guard.InPath("tenant")},
		SetHeader: "X-Tenant", // for code behind that believes it
	}
	http.Handle("GET /t/{tenant}/orders/{id}", g.Handler(read, orders{}))
}

// A token that did not come by HTTP, such as that of a job.
func ExampleGuard_Enter() {
	work := func(ctx context.Context, g *guard.Guard, token string) error {
		ctx, err := g.Enter(ctx, token, "job-7")
		if err != nil {
			return err
		}
		return guard.Check(ctx, guard.Resource{Tenant: credential.MustTenant("acme"), Type: "invoice", ID: "17"})
	}
	_ = work
}
