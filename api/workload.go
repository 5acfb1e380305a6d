package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/gorilla/mux"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// workloadRate bounds the calls of one account to an endpoint for workloads,
// unless that says otherwise: enough for hundreds of its processes that come back at once.
var workloadRate = issuer.Rate{PerSecond: 100, Burst: 1000}

// workload is one of the broker's own audiences that workloads, not operators,
// present tokens for.
type workload struct {
	audience credential.Audience
	verifier Verifier
	calls    *operatorLimiter
	// entitled reports whether the account would get such a token now.
	entitled func(r store.Reader, account *registry.Account, token *verifier.Token) (bool, error)
	// tellsEnd: who calls when its tenant was suspended is served all the same, by
	// a handler that looks at ended.
	tellsEnd bool

	bearerChallenge, invalidTokenChallenge []string
}

func (s *server) newWorkload(v Verifier, audience credential.Audience,
	entitled func(store.Reader, *registry.Account, *verifier.Token) (bool, error),
) (*workload, error) {
	calls, err := newOperatorLimiter(workloadRate)
	return &workload{
		audience: audience, verifier: v, calls: calls, entitled: entitled,
		bearerChallenge: s.bearerChallenge, invalidTokenChallenge: s.invalidTokenChallenge,
	}, err
}

// workloadCall is one authenticated request of a workload on its way to a
// handler.
type workloadCall struct {
	*server
	w       *response
	r       *http.Request
	kind    *workload
	token   *verifier.Token
	account *registry.Account // as it was when the call began; nil when ended
	ended   error             // why the caller may not call, if its tenant was suspended and it is to be told
	vars    map[string]string
	query   form
}

// callWorkload authenticates, and calls.
func (s *server) callWorkload(w *response, r *http.Request, rt route) (answer, error) {
	c := &workloadCall{server: s, w: w, r: r, kind: s.workloads[rt.workload], vars: make(map[string]string)}
	if err := c.authenticate(); err != nil {
		return answer{}, err
	}
	if err := c.kind.calls.take(c.token.ClientID(), s.now()); err != nil {
		return answer{}, err
	}
	var err error
	if c.query, err = readQuery(r.URL.RawQuery, rt.query); err != nil {
		return answer{}, err
	}
	for name, escaped := range mux.Vars(r) {
		if c.vars[name], err = url.PathUnescape(escaped); err != nil {
			return answer{}, refuse(wire.CodeNotFound, "", "")
		}
	}
	return rt.serve(c)
}

// isForOthers reports whether the request's token is good, and for another of
// the broker's audiences than this route's workloads'. The signature is verified
// before the audience is looked at; whoever serves it verifies all of it anew.
func (s *server) isForOthers(r *http.Request, rt route) bool {
	raw, err := authorization(r.Header, "Bearer")
	if err != nil || raw == "" {
		return false
	}
	_, err = s.workloads[rt.workload].verifier.Verify(r.Context(), raw)
	return errors.Is(err, verifier.ErrAudience)
}

// authenticate verifies the bearer token (RFC 6750) and the standing of its
// account.
func (c *workloadCall) authenticate() error {
	raw, err := authorization(c.r.Header, "Bearer")
	if err != nil || raw == "" {
		c.w.Header()["Www-Authenticate"] = c.kind.bearerChallenge
		c.w.cause = err
		return refuse(wire.CodeUnauthenticated, "", "send a bearer token for "+c.kind.audience.String())
	}
	token, err := c.kind.verifier.Verify(c.r.Context(), raw)
	if err != nil {
		return c.unaccepted(err)
	}
	c.token = token
	return c.inStanding()
}

// inStanding asks the store whether the caller still may call. Who waits asks
// again before anything is released.
func (c *workloadCall) inStanding() error {
	suspended := false
	err := c.store.View(c.r.Context(), func(r store.Reader) (err error) {
		if c.account, err = c.stands(r); err == nil || !c.kind.tellsEnd || unavailable(err) {
			return err
		}
		var failed error
		suspended, failed = c.tenantSuspended(r)
		return errors.Join(err, failed)
	})
	switch {
	case err == nil:
		return nil
	case suspended:
		c.ended = err
		return nil
	}
	return c.unaccepted(err)
}

// tenantSuspended reports whether the tenant of the caller, not the system, is
// suspended.
func (c *workloadCall) tenantSuspended(r store.Reader) (bool, error) {
	if c.token.Tenant().IsSystem() {
		return false, nil
	}
	tenant, _, err := c.registry.TenantAt(r, c.token.Tenant())
	if err != nil {
		return false, standing(err)
	}
	return tenant.State == registry.TenantSuspended, nil
}

// stands is inStanding in one state, such as that of a commit.
func (c *workloadCall) stands(r store.Reader) (*registry.Account, error) {
	account, err := c.alive(r, c.token)
	if err != nil {
		return nil, err
	}
	entitled, err := c.kind.entitled(r, account, c.token)
	if err == nil && !entitled {
		err = errStanding
	}
	return account, err
}

func (c *workloadCall) unaccepted(err error) error {
	if unavailable(err) {
		return refuse(wire.CodeUnavailable, "", "")
	}
	c.w.cause = err
	c.w.Header()["Www-Authenticate"] = c.kind.invalidTokenChallenge
	return refuse(wire.CodeUnauthenticated, "", "the token is not accepted")
}

// unavailable reports that an error says nothing of the token.
func unavailable(err error) bool {
	for _, passing := range []error{verifier.ErrUnavailable, store.ErrUnavailable, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}
