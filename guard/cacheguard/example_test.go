package cacheguard_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/cacheguard"
)

// Invoice is what the service caches.
type Invoice struct {
	Tenant credential.Tenant
	ID     string
}

// The handler runs behind guard's Handler, which has put the token into the
// context. The invoice is loaded once for all callers of a tenant who ask at once.
func Example() {
	invoices, err := cacheguard.New(cacheguard.Config[*Invoice]{
		Name: "invoice", Entries: 10_000, TTL: time.Minute,
		TenantOf: func(i *Invoice) credential.Tenant { return i.Tenant },
	})
	if err != nil {
		panic(err)
	}
	http.HandleFunc("GET /invoices/{id}", func(w http.ResponseWriter, r *http.Request) {
		ctx, id := r.Context(), r.PathValue("id")
		key, err := cacheguard.Key(ctx, "invoice", id)
		if err != nil {
			guard.Refuse(w, r, err)
			return
		}
		invoice, err := invoices.Load(ctx, key, func(ctx context.Context) (*Invoice, error) {
			return fromDatabase(ctx, id)
		})
		if err != nil {
			guard.Refuse(w, r, err)
			return
		}
		_, _ = fmt.Fprintln(w, invoice.ID)
	})
}

// What is not there is an error, never a nil without one: that would be kept.
func fromDatabase(ctx context.Context, id string) (*Invoice, error) {
	if id == "" {
		return nil, guard.ErrNotFound
	}
	tenant, err := guard.Tenant(ctx)
	return &Invoice{tenant, id}, err
}

func ExampleParseKey() {
	tenant, parts, err := cacheguard.ParseKey("tb:acme:order:7%3A8")
	fmt.Println(tenant, parts, err)
	_, _, err = cacheguard.ParseKey("order:7")
	fmt.Println(err)
	// Output:
	// acme [order 7:8] <nil>
	// cacheguard: not a key with a tenant
}
