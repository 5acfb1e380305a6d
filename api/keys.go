package api

import (
	"context"
	"net/http"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func keyRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/keys", role: registry.RoleViewer, do: listKeys},
		// An emergency needs more than the role named here: see rotation/keys.
		{method: http.MethodPost, path: "/v1/keys/rotate", role: registry.RoleOperator, whole: true, do: rotateKey},
		{method: http.MethodGet, path: "/v1/keys/{kid}/impact", role: registry.RoleViewer, whole: true, do: keyImpact},
		{method: http.MethodPost, path: "/v1/keys/{kid}/revoke", role: registry.RoleSecurity, whole: true, do: revokeKey},
	}
}

// maxImpactTenants bounds the list of tenants in an answer.
const maxImpactTenants = 1000

// WireKey is a signing key as operators see it.
func WireKey(k keys.KeyInfo) wire.Key {
	out := wire.Key{
		ID: k.ID, Algorithm: k.Algorithm, State: string(k.State), Home: k.Home, PublishedAt: k.PublishedAt,
		ActivatedAt: k.ActivatedAt, GoneAt: k.KeepUntil, Problem: k.Problem,
	}
	if k.State == keys.Revoked {
		out.RevokedAt = k.StoppedAt
	} else {
		out.RetiredAt = k.StoppedAt
	}
	return out
}

// maxLacking bounds the accounts that are named for holding a rotation up.
const maxLacking = 20

// keyList shows the ring and, to operators of the whole broker, what it is
// used for and waits for: how much others are at work is not for one tenant's.
func (c *call) keyList() (answer, error) {
	if !c.by.Tenant.IsSystem() {
		return listed("keys", c.keys.List(), "", keyOutline)
	}
	live, whole, err := c.keys.Live(c.r.Context())
	if err != nil { // the ring is shown all the same: whoever looks may have a failing disk
		c.w.cause, whole = err, false
	}
	var uptake keys.Uptake
	if c.follow != nil && c.follow.members != nil {
		uptake = c.follow.members.Uptake()
	}
	wait := c.keys.Waiting()
	return listed("keys", c.keys.List(), "", func(k keys.KeyInfo) wire.Key {
		out := WireKey(k)
		if n := live[k.ID]; whole {
			out.LiveTokens = &n
		}
		if uptake.Verifiers > 0 {
			out.Uptake = &wire.KeyUptake{Holding: uptake.Holding[k.ID], Verifiers: uptake.Verifiers}
		}
		if k.ID == wait.KeyID {
			out.Waits = c.keyWait(wait)
		}
		return out
	})
}

func (c *call) keyWait(w keys.Wait) *wire.KeyWait {
	out := &wire.KeyWait{For: string(w.For), Due: w.Due, Until: w.Until, Missing: w.Missing}
	if w.For != keys.WaitUptake || c.follow == nil || c.follow.members == nil {
		return out
	}
	for _, l := range c.follow.members.Without(w.KeyID, maxLacking) {
		out.Lacking = append(out.Lacking, wire.KeyLacking{Account: l.Account, Verifiers: l.Verifiers})
	}
	return out
}

func listKeys(c *call) (answer, error) { return c.keyList() }

// rotateKey answers with the ring as it is now.
func rotateKey(c *call) (answer, error) {
	var in wire.KeyRotate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	if err := c.keys.Rotate(c.r.Context(), c.by, keys.RotateOptions{Emergency: in.Emergency, Reason: in.Reason}); err != nil {
		return answer{}, err
	}
	return c.keyList()
}

func keyImpact(c *call) (answer, error) {
	found, err := c.keys.Impact(c.r.Context(), c.vars["kid"])
	if err != nil {
		return answer{}, err
	}
	return ok(wireImpact(c.vars["kid"], found), 0)
}

// impactTime bounds the count before a revocation: an emergency doesn't wait.
const impactTime = 5 * time.Second

// revokeKey says what it killed: the impact as it was just before. The key is
// revoked whether or not that could be counted.
func revokeKey(c *call) (answer, error) {
	var in wire.Change
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	kid := c.vars["kid"]
	ctx, cancel := context.WithTimeout(c.r.Context(), impactTime)
	defer cancel()
	killed, uncounted := c.keys.Impact(ctx, kid)
	if err := c.keys.Revoke(c.r.Context(), c.by, kid, in.Reason); err != nil {
		return answer{}, err
	}
	out := wireImpact(kid, killed)
	if uncounted != nil {
		out = wire.KeyImpact{ID: kid, Tenants: []wire.TenantImpact{}, Uncounted: true}
	}
	return ok(out, 0)
}

func wireImpact(kid string, i keys.Impact) wire.KeyImpact {
	out := wire.KeyImpact{ID: kid, Tokens: i.Tokens, Last: i.Last, Tenants: []wire.TenantImpact{}}
	for n, t := range i.Tenants {
		if n == maxImpactTenants {
			out.More = uint64(len(i.Tenants) - n) //nolint:gosec // not negative
			break
		}
		if t.Tenant.IsZero() { // on the broker's own chain: operators' tokens
			t.Tenant = credential.System
		}
		out.Tenants = append(out.Tenants, wire.TenantImpact{Tenant: t.Tenant, Tokens: t.Tokens})
	}
	return out
}
