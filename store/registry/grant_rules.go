package registry

import (
	"cmp"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// base32 digits in ASCII order, so that ids sort by their time.
var idDigits = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newGrantID returns "g_" and 26 characters: 48 bits of milliseconds, so that
// ids ascend with time, and 80 random bits.
func newGrantID(at time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(at.UnixMilli())<<16)
	_, _ = rand.Read(b[6:]) // never fails (crypto/rand, Go 1.24)
	return "g_" + idDigits.EncodeToString(b[:])
}

// normalize gives a grant its one form: tenants sorted and named once, dates
// in UTC milliseconds.
func (g *Grant) normalize() {
	slices.SortFunc(g.Tenants, func(a, b credential.Tenant) int { return cmp.Compare(a.String(), b.String()) })
	g.Tenants = slices.Compact(g.Tenants)
	g.NotBefore, g.ExpiresAt = instant(g.NotBefore), instant(g.ExpiresAt)
	if g.AnyTenant != nil {
		g.AnyTenant.ExpiresAt = instant(g.AnyTenant.ExpiresAt)
		g.AnyTenant.ApprovedBy, g.AnyTenant.ApprovedAt = "", time.Time{}
	}
}

// checkGrant holds a grant to what it must be at any time.
func (g *Registry) checkGrant(next *Grant, now time.Time) error {
	if err := checkText("reason", next.Reason, MaxReason, true); err != nil {
		return err
	}
	if next.Scopes.IsEmpty() {
		return invalid("scopes", "at least one")
	}
	if err := g.checkLeaseScopes(next); err != nil {
		return err
	}
	if err := g.checkWay(next, now); err != nil {
		return err
	}
	if err := g.checkExpression("condition", CELGrant, next.Condition); err != nil {
		return err
	}
	if next.Operator && next.MaxTTL.Duration() > credential.MaxOperatorLifetime {
		return invalid("max_ttl", "at most %s for operators", credential.MaxOperatorLifetime)
	}
	if f := next.FanOut; f != nil {
		switch {
		case f.Tenants < 1 || f.Tenants > MaxFanOutTenants:
			return invalid("fan_out.tenants", "1 to %d", MaxFanOutTenants)
		case f.Window < MinFanOutWindow || f.Window > MaxFanOutWindow:
			return invalid("fan_out.window", "%s to %s", MinFanOutWindow, MaxFanOutWindow)
		case f.Window%time.Second != 0:
			return invalid("fan_out.window", "whole seconds")
		}
	}
	return nil
}

// checkLeaseScopes holds the scopes of a grant for leases to what can be leased.
func (g *Registry) checkLeaseScopes(next *Grant) error {
	if next.Audience != g.issuer.Leases() {
		return nil
	}
	for _, scope := range next.Scopes.List() {
		if _, err := credential.ParseLeasable(scope); err != nil {
			return invalid("scopes", "for leases, each is database:NAME or kv:NAME")
		}
	}
	return nil
}

// checkWay holds a grant to exactly one way of finding its tenant, none of
// which yields the system tenant.
func (g *Registry) checkWay(next *Grant, now time.Time) error {
	ways := 0
	if len(next.Tenants) > 0 {
		ways++
	}
	if len(next.TenantLabels) > 0 {
		ways++
	}
	if next.TenantFrom != "" {
		ways++
	}
	if next.AnyTenant != nil {
		ways++
	}
	if ways != 1 {
		return invalid("tenants", "exactly one of tenants, tenant_labels, tenant_from and any_tenant")
	}
	if len(next.Tenants) > MaxTenantsPerGrant {
		return invalid("tenants", "%d tenants, at most %d in one grant", len(next.Tenants), MaxTenantsPerGrant)
	}
	for _, t := range next.Tenants {
		if t.IsZero() || (t.IsSystem() && !next.Operator) {
			return invalid("tenants", "names of tenants; the system tenant can't be granted")
		}
	}
	if err := checkLabels("tenant_labels", next.TenantLabels, MaxGrantLabels); err != nil {
		return err
	}
	if err := g.checkExpression("tenant_from", CELTenantFrom, next.TenantFrom); err != nil {
		return err
	}
	if next.AnyTenant == nil {
		return nil
	}
	if err := checkText("any_tenant.reason", next.AnyTenant.Reason, MaxReason, true); err != nil {
		return err
	}
	end := next.AnyTenant.ExpiresAt
	switch {
	case end.IsZero():
		return invalid("any_tenant.expires_at", "is required")
	case !end.After(now):
		return invalid("any_tenant.expires_at", "is over already")
	case end.Sub(now) > MaxAnyTenant:
		return invalid("any_tenant.expires_at", "at most 30 days ahead")
	}
	return nil
}

// checkDates holds the dates that changed: an end that has passed meanwhile
// must not keep a grant from being edited.
func (g *Registry) checkDates(old, next *Grant, now time.Time) error {
	if !next.ExpiresAt.Equal(old.ExpiresAt) {
		if err := checkEnd("expires_at", next.ExpiresAt, now); err != nil {
			return err
		}
	}
	if next.NotBefore.After(endOfTime) {
		return invalid("not_before", "too far ahead")
	}
	if !next.ExpiresAt.IsZero() && !next.NotBefore.Before(next.ExpiresAt) {
		return invalid("not_before", "is not before expires_at")
	}
	return nil
}

// checkRoom holds a grant to tenants that exist and to the number of grants
// that a token request may have to look at. old is nil for a new grant.
func (c *change) checkRoom(next, old *Grant) error {
	listed := map[credential.Tenant]bool{}
	wasOpen := false
	if old != nil {
		for _, t := range old.Tenants {
			listed[t] = true
		}
		wasOpen = len(old.Tenants) == 0
	}
	for _, t := range next.Tenants {
		if listed[t] {
			continue
		}
		if !t.IsSystem() {
			if _, err := c.Get(tenants, t.String()); err != nil {
				return refusedReference(err, "tenants", "one of them doesn't exist")
			}
		}
		n, err := countRows(c, grantTenants, under(next.Account.String(), next.Audience.String(), t.String()), MaxListedGrants)
		if err != nil {
			return err
		}
		if n >= MaxListedGrants {
			return invalid("tenants", "at most %d grants per account, audience and tenant", MaxListedGrants)
		}
	}
	if len(next.Tenants) > 0 || wasOpen {
		return nil
	}
	n, err := countRows(c, grantsOpen, under(next.Account.String(), next.Audience.String()), MaxOpenGrants)
	if err == nil && n >= MaxOpenGrants {
		err = invalid("tenants", "at most %d grants per account and audience that don't name their tenants", MaxOpenGrants)
	}
	return err
}

// index is what a grant implies in the derived tables.
func (g *Grant) index() []indexRow {
	account, audience := g.Account.String(), g.Audience.String()
	rows := make([]indexRow, 0, 4+2*len(g.Tenants)+len(g.TenantLabels))
	rows = append(rows,
		indexRow{grantsAccount, store.Key(account, g.ID), ""},
		indexRow{grantsAudience, store.Key(audience, g.ID), ""})
	if g.Operator {
		rows = append(rows, indexRow{grantsOperator, store.Key(account, g.ID), ""})
	}
	if len(g.Tenants) == 0 {
		rows = append(rows, indexRow{grantsOpen, store.Key(account, audience, g.ID), ""})
	} else {
		rows = append(rows, indexRow{grantLists, g.ID, encodeList(g.Tenants)})
	}
	// The value tells a grant of this tenant alone from one of several: the
	// former has its home here.
	share := shareSeveral
	if len(g.Tenants) == 1 {
		share = shareSole
	}
	for _, t := range g.Tenants {
		rows = append(rows,
			indexRow{grantTenants, store.Key(account, audience, t.String(), g.ID), ""},
			indexRow{grantsTenant, store.Key(t.String(), g.ID), share})
	}
	for key := range g.TenantLabels {
		rows = append(rows, indexRow{grantsLabel, store.Key(key, g.ID), ""})
	}
	return rows
}

const (
	shareSole    = "1"
	shareSeveral = "n"
)

func encodeList(list []credential.Tenant) string {
	names := make([]string, len(list))
	for i, t := range list {
		names[i] = t.String()
	}
	return strings.Join(names, "\n")
}

// decodeList reads a list of tenants and refuses one that encodeList would not
// have written.
func decodeList(s string) ([]credential.Tenant, error) {
	names := strings.Split(s, "\n")
	if len(names) > MaxTenantsPerGrant {
		return nil, errors.New("registry: stored list of tenants: too long")
	}
	list := make([]credential.Tenant, len(names))
	for i, name := range names {
		t, err := credential.ParseTenant(name)
		if err != nil {
			return nil, fmt.Errorf("registry: stored list of tenants: %w", err)
		}
		if i > 0 && names[i-1] >= name {
			return nil, errors.New("registry: stored list of tenants: out of order")
		}
		list[i] = t
	}
	return list, nil
}

// InForce reports whether the grant's dates, and its approval where it needs
// one, let it be used at now.
func (g *Grant) InForce(now time.Time) bool {
	switch {
	case now.Before(g.NotBefore):
		return false
	case !g.ExpiresAt.IsZero() && !now.Before(g.ExpiresAt):
		return false
	case g.AnyTenant != nil:
		return g.AnyTenant.ApprovedBy != "" && now.Before(g.AnyTenant.ExpiresAt)
	}
	return true
}

// MatchesLabels reports whether the grant finds its tenants by labels and t has
// all of them.
func (g *Grant) MatchesLabels(t *Tenant) bool {
	for key, value := range g.TenantLabels {
		if got, ok := t.Labels[key]; !ok || got != value {
			return false
		}
	}
	return len(g.TenantLabels) > 0
}
