package demo

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/verifier"
)

// orders are the rows of two tenants in one table, as in any shared service.
var orders = []struct {
	Tenant string `json:"tenant"`
	ID     string `json:"id"`
	Item   string `json:"item"`
}{
	{"acme", "o-1", "anvil"},
	{"acme", "o-2", "rocket skates"},
	{"globex", "o-3", "weather machine"},
}

// downstream is a small service that guards its rows with the verifier.
type downstream struct {
	url    string
	server *http.Server
}

func startDownstream(ctx context.Context, issuer, audience string) (*downstream, error) {
	tokens, err := verifier.New(ctx, verifier.Config{Issuer: issuer, Audience: audience})
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /tenants/{tenant}/orders", func(w http.ResponseWriter, r *http.Request) {
		raw, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		token, err := tokens.Verify(r.Context(), raw)
		if err != nil {
			http.Error(w, verifier.Reason(err), http.StatusUnauthorized)
			return
		}
		// The boundary: the path says which rows, the token says whose.
		if r.PathValue("tenant") != token.Tenant().String() {
			http.Error(w, "these rows are another tenant's", http.StatusForbidden)
			return
		}
		if !token.Scopes().Has("orders:read") {
			http.Error(w, "scope orders:read is needed", http.StatusForbidden)
			return
		}
		mine := orders[:0:0]
		for _, o := range orders {
			if o.Tenant == token.Tenant().String() {
				mine = append(mine, o)
			}
		}
		answer(w, mine)
	})
	d := &downstream{
		url:    "http://" + listener.Addr().String(),
		server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second},
	}
	go func() { _ = d.server.Serve(listener) }() // ends at close
	return d, nil
}

func (d *downstream) close() { _ = d.server.Close() }
