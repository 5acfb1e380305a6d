package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/tenantbroker/tenantbroker/verifier"
)

// A service makes one Verifier at start and asks it in each request. The
// token's tenant, and nothing that the request says, picks the rows.
func Example() {
	ctx := context.Background()
	tokens, err := verifier.New(ctx, verifier.Config{
		Issuer:   "https://broker.example",
		Audience: "https://orders.example",
	})
	if err != nil {
		slog.Error("no tokens can be verified", "error", err)
		return
	}
	defer tokens.Close()

	http.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a token is needed", http.StatusUnauthorized)
			return
		}
		token, err := tokens.Verify(r.Context(), raw)
		switch {
		case errors.Is(err, verifier.ErrUnavailable):
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		case err != nil:
			slog.Info("token refused", "reason", verifier.Reason(err))
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "the token is not accepted", http.StatusUnauthorized)
			return
		case !token.Scopes().Has("orders.read"):
			http.Error(w, "the scope is missing", http.StatusForbidden)
			return
		}
		_, _ = fmt.Fprintf(w, "the orders of %s\n", token.Tenant())
	})
}

func ExampleReason() {
	err := fmt.Errorf("request 7: %w", verifier.ErrExpired)
	fmt.Println(verifier.Reason(err))
	// Output: expired
}

// suspended is a list of tenants that may not go on. A real one is kept fresh
// by the service and says when it is too old to know.
type suspended map[string]bool

var errSuspended = errors.New("the tenant is suspended")

func (s suspended) Revoked(t *verifier.Token) error {
	if s[t.Tenant().String()] {
		return errSuspended
	}
	return nil
}

// What was revoked before its time is known to a Revocations, which is asked
// on every call, for remembered tokens too.
func ExampleConfig_revocations() {
	cfg := verifier.Config{
		Issuer:      "https://broker.example",
		Audience:    "https://orders.example",
		Revocations: suspended{"globex": true},
	}
	fmt.Println(cfg.Audience)
	// Output: https://orders.example
}
