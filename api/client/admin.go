package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// Admin makes the operators' calls. Changes take the operator's reason, which
// goes to the audit trail, and the version of the object that they are based
// on: zero stands for "whatever it is now", which neither an update nor an
// approval accepts.
//
// Every error is an *Error; besides the sentinels of this package, the finer
// ones of wire match it (wire.ErrInUse, wire.ErrTooEarly, …).
type Admin struct {
	client *Client
	tenant credential.Tenant
}

// Admin returns the operators' calls for an operator of the whole broker
// (credential.System) or of one tenant.
func (c *Client) Admin(tenant credential.Tenant) *Admin { return &Admin{client: c, tenant: tenant} }

// Token returns the operator's token that the calls are made with.
func (a *Admin) Token(ctx context.Context) (*Token, error) {
	return a.client.Token(ctx, TokenRequest{Tenant: a.tenant, Audience: a.client.issuer.Own("admin")})
}

// Tenants returns the calls for tenants.
func (a *Admin) Tenants() Tenants {
	return Tenants{objects[wire.Tenant, wire.TenantCreate]{a, "tenant", "/v1/tenants"}}
}

// Accounts returns the calls for service accounts and their credentials.
func (a *Admin) Accounts() Accounts {
	return Accounts{objects[wire.Account, wire.AccountCreate]{a, "account", "/v1/accounts"}}
}

// Audiences returns the calls for audiences.
func (a *Admin) Audiences() Audiences {
	return Audiences{objects[wire.Audience, wire.AudienceCreate]{a, "audience", "/v1/audiences"}}
}

// Grants returns the calls for grants.
func (a *Admin) Grants() Grants {
	return Grants{objects[wire.Grant, wire.GrantCreate]{a, "grant", "/v1/grants"}}
}

// Issuers returns the calls for trusted issuers.
func (a *Admin) Issuers() Issuers {
	return Issuers{objects[wire.Issuer, wire.IssuerCreate]{a, "issuer", "/v1/issuers"}}
}

// Operators returns the calls for operators.
func (a *Admin) Operators() Operators {
	return Operators{objects[wire.Operator, wire.OperatorCreate]{a, "operator", "/v1/operators"}}
}

// Keys returns the calls for the broker's signing keys.
func (a *Admin) Keys() Keys { return Keys{a} }

// Report returns posture and health in one place: of the whole broker, or of
// the operator's tenant.
func (a *Admin) Report(ctx context.Context) (*wire.Report, error) {
	var r wire.Report
	if err := a.do(ctx, call{op: "report", method: http.MethodGet, path: "/v1/report"}, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// Audit returns the calls for the audit trail.
func (a *Admin) Audit() Audit { return Audit{a} }

// call is one request to an operators' endpoint.
type call struct {
	op        string
	method    string
	path      string // escaped
	query     url.Values
	ifVersion uint64
	body      any
	accept    string // default: JSON
}

// do makes the call and decodes its answer into answer, nil to discard it.
func (a *Admin) do(ctx context.Context, k call, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, a.client.timeout)
	defer cancel()
	for n := 1; ; n++ {
		res, err := a.once(ctx, k)
		if err != nil {
			return err
		}
		if res.status/100 == 2 {
			if answer == nil {
				return nil
			}
			return decode(k.op, res, answer)
		}
		err = a.client.problem(k.op, res)
		if !a.again(ctx, k, n, res) {
			return err
		}
	}
}

// again decides, and waits, for another attempt. Of what changes something only
// a rate limit is tried again, which is answered before anything is done; of
// the rest also an outage.
func (a *Admin) again(ctx context.Context, k call, n int, res *reply) bool {
	const attempts = 3
	later := res.status == http.StatusTooManyRequests ||
		(res.status == http.StatusServiceUnavailable && k.method == http.MethodGet)
	if !later || n == attempts {
		return false
	}
	wait := max(retryAfter(res.header, a.client.now()), a.client.backoff(n, time.Second))
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return false
	}
	return a.client.sleep(ctx, wait) == nil
}

func (a *Admin) once(ctx context.Context, k call) (*reply, error) {
	req, err := a.request(ctx, k)
	if err != nil {
		return nil, err
	}
	res, err := a.client.do(k.op, req, maxAnswer)
	if err == nil && res.status == http.StatusUnauthorized {
		a.client.refused(TokenRequest{Tenant: a.tenant, Audience: a.client.issuer.Own("admin")})
	}
	return res, err
}

func (a *Admin) request(ctx context.Context, k call) (*http.Request, error) {
	token, err := a.Token(ctx)
	if err != nil {
		return nil, err
	}
	address := a.client.issuer.String() + k.path
	if len(k.query) > 0 {
		address += "?" + k.query.Encode()
	}
	var body io.Reader
	if k.body != nil {
		data, err := json.Marshal(k.body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.op, err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, address, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.op, err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Accept", "application/json")
	if k.accept != "" {
		req.Header.Set("Accept", k.accept)
	}
	if k.body != nil {
		req.Header.Set("Content-Type", "application/json")
		if k.method == http.MethodPatch {
			req.Header.Set("Content-Type", "application/merge-patch+json")
		}
	}
	if k.ifVersion != 0 {
		req.Header.Set("If-Match", strconv.Quote(strconv.FormatUint(k.ifVersion, 10)))
	}
	return req, nil
}

// pages yields the items of a list, page after page, until it ends or fails.
func pages[T any](ctx context.Context, a *Admin, op, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		q := url.Values{}
		for name, values := range query {
			q[name] = values
		}
		for {
			var page wire.List[T]
			if err := a.do(ctx, call{op: op, method: http.MethodGet, path: path, query: q}, &page); err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			if page.Next == q.Get("cursor") { // a list that never ends
				var none T
				yield(none, &Error{Op: op, Status: http.StatusOK, Detail: "the same page again", kind: ErrUnexpected})
				return
			}
			q.Set("cursor", page.Next)
		}
	}
}

// filter makes query parameters of what is not empty: name, value, name, value.
func filter(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// under appends escaped segments to a path. An id that is empty, "." or ".."
// would name another path.
func under(path string, segments ...string) (string, error) {
	for _, s := range segments {
		if strings.Trim(s, ".") == "" {
			return "", fmt.Errorf("client: %q is not an id", s)
		}
		path += "/" + url.PathEscape(s)
	}
	return path, nil
}
