package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/issuer"
)

// wait returns why nobody is authenticated yet, nil once they are.
func (r *restored) wait(now time.Time) error {
	if r == nil || !now.Before(r.Until) {
		return nil
	}
	return fmt.Errorf("a backup was restored at %s: no token is issued before %s, when the last assertion in flight has expired",
		r.At.Format(time.RFC3339), r.Until.Format(time.RFC3339))
}

// waiting stands before the issuer of a restored store (I9). Whoever
// authenticates could use an assertion that the lost store has seen, so none
// of the endpoints that take one answers before it is over.
type waiting struct {
	*issuer.Issuer
	until time.Time
	now   func() time.Time
}

var _ api.Issuer = (*waiting)(nil)

// Token implements api.Issuer.
func (w *waiting) Token(ctx context.Context, r issuer.TokenRequest) (issuer.TokenResponse, error) {
	if err := w.refuse(); err != nil {
		return issuer.TokenResponse{}, err
	}
	return w.Issuer.Token(ctx, r)
}

// Introspect implements api.Issuer.
func (w *waiting) Introspect(ctx context.Context, r issuer.IntrospectRequest) (issuer.Introspection, error) {
	if err := w.refuse(); err != nil {
		return issuer.Introspection{}, err
	}
	return w.Issuer.Introspect(ctx, r)
}

// Revoke implements api.Issuer.
func (w *waiting) Revoke(ctx context.Context, r issuer.RevokeRequest) error {
	if err := w.refuse(); err != nil {
		return err
	}
	return w.Issuer.Revoke(ctx, r)
}

func (w *waiting) refuse() error {
	left := w.until.Sub(w.now())
	if left <= 0 {
		return nil
	}
	return &issuer.Error{Code: issuer.TemporarilyUnavailable, RetryAfter: left, Reason: "restored_backup"}
}
