package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// objects are the calls that all kinds of object have in common: T is the
// object and C the body that creates one.
type objects[T, C any] struct {
	admin *Admin
	noun  string
	path  string
}

func (o objects[T, C]) list(ctx context.Context, query url.Values) iter.Seq2[T, error] {
	return pages[T](ctx, o.admin, o.noun+" list", o.path, query)
}

// Create makes an object and returns it as it was stored.
func (o objects[T, C]) Create(ctx context.Context, body C) (*T, error) {
	return o.make(ctx, "create", body)
}

// make is Create under the name that brokerctl has for it.
func (o objects[T, C]) make(ctx context.Context, verb string, body C) (*T, error) {
	var made T
	err := o.admin.do(ctx, call{op: o.noun + " " + verb, method: http.MethodPost, path: o.path, body: body}, &made)
	if err != nil {
		return nil, err
	}
	return &made, nil
}

func (o objects[T, C]) get(ctx context.Context, id string) (*T, error) {
	return o.one(ctx, call{op: o.noun + " get", method: http.MethodGet}, id)
}

func (o objects[T, C]) update(ctx context.Context, id string, ifVersion uint64, patch wire.Patch) (*T, error) {
	return o.one(ctx, call{op: o.noun + " update", method: http.MethodPatch, ifVersion: ifVersion, body: patch}, id)
}

func (o objects[T, C]) delete(ctx context.Context, id string, ifVersion uint64, reason string) error {
	return o.remove(ctx, "delete", id, ifVersion, reason)
}

// remove is delete under the name that brokerctl has for it.
func (o objects[T, C]) remove(ctx context.Context, verb, id string, ifVersion uint64, reason string) error {
	path, err := under(o.path, id)
	if err != nil {
		return err
	}
	return o.admin.do(ctx, call{
		op: o.noun + " " + verb, method: http.MethodDelete, path: path,
		query: url.Values{"reason": {reason}}, ifVersion: ifVersion,
	}, nil)
}

// act posts one of the actions that take a reason only, e.g. "suspend".
func (o objects[T, C]) act(ctx context.Context, id, action string, ifVersion uint64, reason string) (*T, error) {
	return o.one(ctx, call{
		op: o.noun + " " + action, method: http.MethodPost, ifVersion: ifVersion, body: wire.Change{Reason: reason},
	}, id, action)
}

func (o objects[T, C]) one(ctx context.Context, k call, segments ...string) (*T, error) {
	var err error
	if k.path, err = under(o.path, segments...); err != nil {
		return nil, err
	}
	var object T
	if err := o.admin.do(ctx, k, &object); err != nil {
		return nil, err
	}
	return &object, nil
}

// Tenants are the calls for tenants.
type Tenants struct {
	objects[wire.Tenant, wire.TenantCreate]
}

// List yields all tenants that the operator may see.
func (t Tenants) List(ctx context.Context) iter.Seq2[wire.Tenant, error] { return t.list(ctx, nil) }

// Get returns one tenant, or ErrNotFound.
func (t Tenants) Get(ctx context.Context, id credential.Tenant) (*wire.Tenant, error) {
	return t.get(ctx, id.String())
}

// Update applies a merge patch to the tenant at version ifVersion, or returns ErrChanged.
func (t Tenants) Update(ctx context.Context, id credential.Tenant, ifVersion uint64, patch wire.Patch) (*wire.Tenant, error) {
	return t.update(ctx, id.String(), ifVersion, patch)
}

// Suspend stops tokens for the tenant from being issued.
func (t Tenants) Suspend(ctx context.Context, id credential.Tenant, ifVersion uint64, reason string) (*wire.Tenant, error) {
	return t.act(ctx, id.String(), "suspend", ifVersion, reason)
}

// Resume ends a suspension.
func (t Tenants) Resume(ctx context.Context, id credential.Tenant, ifVersion uint64, reason string) (*wire.Tenant, error) {
	return t.act(ctx, id.String(), "resume", ifVersion, reason)
}

// Delete removes the tenant for good: its id is never used again.
func (t Tenants) Delete(ctx context.Context, id credential.Tenant, ifVersion uint64, reason string) error {
	return t.delete(ctx, id.String(), ifVersion, reason)
}

// Audiences are the calls for audiences.
type Audiences struct {
	objects[wire.Audience, wire.AudienceCreate]
}

// List yields all audiences that the operator may see.
func (o Audiences) List(ctx context.Context) iter.Seq2[wire.Audience, error] {
	return o.list(ctx, nil)
}

// Get returns one audience, or ErrNotFound.
func (o Audiences) Get(ctx context.Context, name credential.Audience) (*wire.Audience, error) {
	return o.get(ctx, name.String())
}

// Update applies a merge patch to the audience at version ifVersion, or returns ErrChanged.
func (o Audiences) Update(ctx context.Context, name credential.Audience, ifVersion uint64, patch wire.Patch) (*wire.Audience, error) {
	return o.update(ctx, name.String(), ifVersion, patch)
}

// Delete removes the audience.
func (o Audiences) Delete(ctx context.Context, name credential.Audience, ifVersion uint64, reason string) error {
	return o.delete(ctx, name.String(), ifVersion, reason)
}

// Grants are the calls for grants.
type Grants struct {
	objects[wire.Grant, wire.GrantCreate]
}

// GrantFilter narrows a list of grants; zero members don't.
type GrantFilter struct {
	Account  credential.AccountID
	Audience credential.Audience
	Tenant   credential.Tenant
}

// List yields the grants that match f.
func (g Grants) List(ctx context.Context, f GrantFilter) iter.Seq2[wire.Grant, error] {
	return g.list(ctx, filter("account", f.Account.String(), "audience", f.Audience.String(), "tenant", f.Tenant.String()))
}

// Get returns one grant, or ErrNotFound.
func (g Grants) Get(ctx context.Context, id string) (*wire.Grant, error) { return g.get(ctx, id) }

// Update applies a merge patch to the grant at version ifVersion, or returns ErrChanged.
func (g Grants) Update(ctx context.Context, id string, ifVersion uint64, patch wire.Patch) (*wire.Grant, error) {
	return g.update(ctx, id, ifVersion, patch)
}

// Approve puts a grant for every tenant into force. It takes another operator
// than the one who made or last changed it, and the version whose terms that
// operator has read: zero is not accepted.
func (g Grants) Approve(ctx context.Context, id string, ifVersion uint64, reason string) (*wire.Grant, error) {
	return g.act(ctx, id, "approve", ifVersion, reason)
}

// Delete removes the grant.
func (g Grants) Delete(ctx context.Context, id string, ifVersion uint64, reason string) error {
	return g.delete(ctx, id, ifVersion, reason)
}

// Issuers are the calls for trusted issuers.
type Issuers struct {
	objects[wire.Issuer, wire.IssuerCreate]
}

// List yields all trusted issuers.
func (i Issuers) List(ctx context.Context) iter.Seq2[wire.Issuer, error] { return i.list(ctx, nil) }

// Get returns one trusted issuer, or ErrNotFound.
func (i Issuers) Get(ctx context.Context, id string) (*wire.Issuer, error) { return i.get(ctx, id) }

// Update applies a merge patch to the issuer at version ifVersion, or returns ErrChanged.
func (i Issuers) Update(ctx context.Context, id string, ifVersion uint64, patch wire.Patch) (*wire.Issuer, error) {
	return i.update(ctx, id, ifVersion, patch)
}

// Delete removes the trusted issuer.
func (i Issuers) Delete(ctx context.Context, id string, ifVersion uint64, reason string) error {
	return i.delete(ctx, id, ifVersion, reason)
}

// Operators are the calls for operators.
type Operators struct {
	objects[wire.Operator, wire.OperatorCreate]
}

// List yields all operators.
func (o Operators) List(ctx context.Context) iter.Seq2[wire.Operator, error] {
	return o.list(ctx, nil)
}

// Create makes an account an operator.
func (o Operators) Create(ctx context.Context, body wire.OperatorCreate) (*wire.Operator, error) {
	return o.make(ctx, "add", body)
}

// Delete takes an operator's permission away. It is named by its grant.
func (o Operators) Delete(ctx context.Context, grant string, ifVersion uint64, reason string) error {
	return o.remove(ctx, "remove", grant, ifVersion, reason)
}
