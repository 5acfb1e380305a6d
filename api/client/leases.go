package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// Leases are a workload's calls for tenant-bound leases: a short-lived database
// user, or the values under the tenant's path. The account needs a grant for
// the audience <issuer>/leases with the scope of what it leases.
type Leases struct{ client *Client }

// Leases returns the calls for leases.
func (c *Client) Leases() Leases { return Leases{c} }

// LeaseRequest names the one tenant, and what is leased.
type LeaseRequest struct {
	Tenant credential.Tenant
	Of     credential.Leasable
	TTL    time.Duration // whole seconds; only shortens; 0: as long as the target says
}

// Lease is a lease as the broker answered. It shows its data only through
// Reveal and Login.
type Lease struct {
	id      string
	request LeaseRequest
	data    credential.Secret
	expires time.Time
	life    time.Duration // since it was made or last renewed
	full    time.Duration // the longest of these
}

// ID names the lease.
func (l *Lease) ID() string { return l.id }

// Tenant returns the tenant whose it is.
func (l *Lease) Tenant() credential.Tenant { return l.request.Tenant }

// Of returns what it is of.
func (l *Lease) Of() credential.Leasable { return l.request.Of }

// Expires returns when it ends unless it is renewed, by this machine's clock.
func (l *Lease) Expires() time.Time { return l.expires }

// Reveal returns the data, a JSON object.
func (l *Lease) Reveal() []byte { return l.data.Reveal() }

// Login returns the user and the password of a database lease.
func (l *Lease) Login() (user, password string, err error) {
	var data struct {
		User     string `json:"username"`
		Password string `json:"password"`
	}
	if err := json.Unmarshal(l.data.Reveal(), &data); err != nil || data.User == "" || data.Password == "" {
		return "", "", errors.New("client: not a lease of a database user")
	}
	return data.User, data.Password, nil
}

// String names the lease without showing its data.
func (l *Lease) String() string {
	return fmt.Sprintf("lease of %s for tenant %s, until %s", l.Of(), l.Tenant(), l.expires.UTC().Format(time.RFC3339))
}

// GoString is String, for %#v.
func (l *Lease) GoString() string { return l.String() }

// LogValue shows slog what String shows.
func (l *Lease) LogValue() slog.Value { return slog.StringValue(l.String()) }

// Obtain makes a lease. An answer that was lost is a lease that ends in its
// time.
//
// Errors: an *Error; ErrForbidden is not granted (or no such thing), ErrSlowDown
// too many leases, ErrConflict no value or no time left.
func (l Leases) Obtain(ctx context.Context, req LeaseRequest) (*Lease, error) {
	if req.Tenant.IsZero() || req.Of.IsZero() {
		return nil, errors.New("client: a lease needs a tenant and what it is of")
	}
	token, err := l.client.Token(ctx, l.tokenRequest(req))
	if err != nil {
		return nil, err
	}
	lease, err := l.obtain(ctx, req, token)
	if errors.Is(err, ErrInvalidClient) { // its grant may have changed since the token was issued
		if token, err = l.fresh(ctx, req); err == nil {
			lease, err = l.obtain(ctx, req, token)
		}
	}
	return lease, err
}

func (l Leases) obtain(ctx context.Context, req LeaseRequest, token *Token) (*Lease, error) {
	body := wire.LeaseRequest{Kind: string(req.Of.Kind()), Name: req.Of.Name(), TTL: wholeSeconds(req.TTL)}
	return l.post(ctx, "lease obtain", wire.PathLeases, token, body, &Lease{request: req})
}

// Renew prolongs a lease with a token that it gets for that. The data of a KV
// lease is what is there now.
//
// Errors: an *Error; ErrConflict says that it can't live longer, ErrNotFound
// that it has ended: obtain another.
func (l Leases) Renew(ctx context.Context, lease *Lease) (*Lease, error) {
	path, err := under(wire.PathLeases, lease.id, "renew")
	if err != nil {
		return nil, err
	}
	token, err := l.fresh(ctx, lease.request)
	if err != nil {
		return nil, err
	}
	return l.post(ctx, "lease renew", path, token, wire.LeaseRenewal{TTL: wholeSeconds(lease.request.TTL)}, lease)
}

// Release gives a lease back. One that has ended is no error.
func (l Leases) Release(ctx context.Context, lease *Lease) error {
	path, err := under(wire.PathLeases, lease.id)
	if err != nil {
		return err
	}
	token, err := l.client.Token(ctx, l.tokenRequest(lease.request))
	if err != nil {
		return err
	}
	_, err = l.call(ctx, "lease release", http.MethodDelete, path, token, nil)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// LeaseByID names a lease of before, to renew or release it.
func LeaseByID(id string, req LeaseRequest) *Lease { return &Lease{id: id, request: req} }

func (l Leases) tokenRequest(req LeaseRequest) TokenRequest {
	scopes, _ := credential.NewScopes(req.Of.String()) // its grammar is one of scopes
	return TokenRequest{Tenant: req.Tenant, Audience: l.client.issuer.Leases(), Scopes: scopes}
}

// fresh gets a token that is nobody's yet: not one from the cache.
func (l Leases) fresh(ctx context.Context, req LeaseRequest) (*Token, error) {
	ctx, cancel := context.WithTimeout(ctx, l.client.timeout)
	defer cancel()
	return l.client.fetch(ctx, l.tokenRequest(req))
}

// post makes a call whose answer is a lease, made of base.
func (l Leases) post(ctx context.Context, op, path string, token *Token, body any, base *Lease) (*Lease, error) {
	sent := l.client.now().Round(0)
	res, err := l.call(ctx, op, http.MethodPost, path, token, body)
	if err != nil {
		return nil, err
	}
	var answer wire.Lease
	if err := decode(op, res, &answer); err != nil {
		return nil, err
	}
	wrong := func(what string) (*Lease, error) {
		return nil, &Error{Op: op, Status: res.status, Detail: what, kind: ErrUnexpected}
	}
	if answer.ID == "" || (base.id != "" && answer.ID != base.id) {
		return wrong("the answer is of another lease")
	}
	lease := *base
	lease.id = answer.ID
	if len(answer.Data) > 0 {
		lease.data = credential.NewSecret(answer.Data)
	}
	// The two clocks are never compared, only lengths of time. Date has whole
	// seconds: it may be up to one earlier than the answer.
	date, err := http.ParseTime(res.header.Get("Date"))
	if err != nil {
		return wrong("the answer has no Date")
	}
	if lease.life = answer.ExpiresAt.Add(-time.Second).Sub(date); lease.life <= 0 {
		return wrong("the lease ends before it begins")
	}
	lease.expires, lease.full = sent.Add(lease.life), max(lease.full, lease.life)
	return &lease, nil
}

func (l Leases) call(ctx context.Context, op, method, path string, token *Token, body any) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, l.client.issuer.String()+path, bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := l.client.do(op, req, maxAnswer)
	if err != nil {
		return nil, err
	}
	if res.status/100 != 2 {
		return nil, l.client.problem(op, res)
	}
	return res, nil
}

// leaseTimeout is longer than a broker takes that waits for its Vault.
const leaseTimeout = 20 * time.Second

func wholeSeconds(d time.Duration) *int64 {
	if d <= 0 {
		return nil
	}
	n := int64(d / time.Second)
	return &n
}

// AdminLeases are operators' calls for leases.
type AdminLeases struct{ admin *Admin }

// Leases returns the calls for leases.
func (a *Admin) Leases() AdminLeases { return AdminLeases{a} }

// LeaseFilter narrows a list; zero members don't.
type LeaseFilter struct {
	Tenant  credential.Tenant
	Account credential.AccountID
	Ending  bool // only those that should be gone and aren't yet
}

// List yields the leases that the operator may see.
func (l AdminLeases) List(ctx context.Context, f LeaseFilter) iter.Seq2[wire.LeaseInfo, error] {
	state := ""
	if f.Ending {
		state = wire.LeaseEnding
	}
	return pages[wire.LeaseInfo](ctx, l.admin, "lease list", wire.PathLeases,
		filter("tenant", f.Tenant.String(), "account", f.Account.String(), "state", state))
}

// Revoke ends a lease. When it returns the end is durable; List shows it until
// it is proven gone.
func (l AdminLeases) Revoke(ctx context.Context, id, reason string) error {
	path, err := under(wire.PathLeases, id)
	if err != nil {
		return err
	}
	return l.admin.do(ctx, call{op: "lease revoke", method: http.MethodDelete, path: path, query: filter("reason", reason)}, nil)
}
