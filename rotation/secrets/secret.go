package secrets

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Limits of shared secrets.
const (
	MaxSecrets = 10_000
	// MaxTenantSecrets is how many one tenant may have, so that none takes the
	// room of all; a plan for all of a tenant's holds that many.
	MaxTenantSecrets = MaxPlan
	MaxConsumers     = 64
	MaxSpecSize      = 8 << 10 // bytes

	MinDrainDeadline     = time.Minute
	MaxDrainDeadline     = 90 * 24 * time.Hour
	DefaultDrainDeadline = 7 * 24 * time.Hour

	MinOverlap     = time.Millisecond // whoever wants none says so: it is waited for no longer
	MaxOverlap     = 24 * time.Hour
	DefaultOverlap = 10 * time.Minute // twice the interval at which Vault's agent reads

	MinMaxAge     = time.Hour
	MaxMaxAge     = 2 * 365 * 24 * time.Hour
	DefaultMaxAge = 90 * 24 * time.Hour
)

// reservedID is no secret's: in the API it stands for all of them.
const reservedID = "rotate"

// Secret is a shared secret as operators declare it. Its value is never here.
type Secret struct {
	ID   string `json:"id"` // grammar of an account id
	Kind string `json:"kind"`
	// Spec says what is rotated and where; its form is the kind's.
	Spec json.RawMessage `json:"spec"`
	// Tenant is whose secret it is; a Shared one is of no tenant.
	Tenant credential.Tenant `json:"tenant,omitzero"`
	Shared bool              `json:"shared,omitempty"`

	Owner       credential.AccountID   `json:"owner"`
	Consumers   []credential.AccountID `json:"consumers"` // who must be seen on a new value
	Description string                 `json:"description,omitempty"`

	Schedule      Schedule `json:"schedule"`
	MaxAge        Duration `json:"max_age"`        // older than this it is overdue
	DrainDeadline Duration `json:"drain_deadline"` // consumers that take longer are an alarm
	// Overlap is how long the old value stays after the last consumer was seen on the
	// new one: the first process of an account that acknowledges speaks for all of
	// them, and what the broker hands out is not yet in use. A broker that starts
	// within it begins it anew.
	Overlap Duration `json:"overlap,omitempty"`
	// Pair names a secret that must never be rotated at the same time.
	Pair string `json:"pair,omitempty"`

	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by"`
	UpdatedAt time.Time `json:"updated_at"`
	Version   uint64    `json:"-"` // of the row
	// UpdatedBy and Within are on whose word it is rotated: the operator who
	// declared it as it is, and what bounded that operator.
	UpdatedBy credential.AccountID `json:"updated_by"`
	Within    credential.Tenant    `json:"within"`

	// Resources are the things out there that the kind changes, such as a path;
	// no two secrets have one in common.
	Resources []string `json:"resources"`
}

// Home is the tenant whose operators administer the secret; credential.System
// for a shared one.
func (s *Secret) Home() credential.Tenant {
	if s.Shared {
		return credential.System
	}
	return s.Tenant
}

// Rotated is on whose word the secret is rotated.
func (s *Secret) Rotated() registry.Rotated {
	return registry.Rotated{Secret: s.ID, By: s.UpdatedBy, Within: s.Within, Tenant: s.Tenant}
}

// clone returns a secret whose lists can be changed.
func (s *Secret) clone() *Secret {
	next := *s
	next.Spec, next.Consumers, next.Resources = slices.Clone(s.Spec), slices.Clone(s.Consumers), slices.Clone(s.Resources)
	if s.Schedule.Window != nil {
		w := *s.Schedule.Window
		w.Days = slices.Clone(w.Days)
		next.Schedule.Window = &w
	}
	return &next
}

// check fills in defaults and holds the secret to its rules, as far as they
// need no state. Those of the spec are the kind's.
func (s *Secret) check() error {
	if _, err := credential.ParseAccountID(s.ID); err != nil {
		return registry.Invalid("id", "%v", err)
	}
	if strings.EqualFold(s.ID, reservedID) {
		return registry.ErrReserved
	}
	if s.MaxAge == 0 {
		s.MaxAge = Duration(DefaultMaxAge)
	}
	if s.DrainDeadline == 0 {
		s.DrainDeadline = Duration(DefaultDrainDeadline)
	}
	if s.Overlap == 0 {
		s.Overlap = Duration(DefaultOverlap)
	}
	overlap := time.Duration(s.Overlap)
	maxAge, drain := time.Duration(s.MaxAge), time.Duration(s.DrainDeadline)
	switch {
	case s.Shared == !s.Tenant.IsZero():
		return registry.Invalid("tenant", "a secret is of one tenant, or shared is true")
	case s.Tenant.IsSystem():
		return registry.Invalid("tenant", "what is of no tenant is shared")
	case s.Owner.IsZero():
		return registry.Invalid("owner", "is required: the account to whom the secret belongs")
	case len(s.Consumers) == 0:
		return registry.Invalid("consumers", "at least one: without, nobody is waited for before the old value ends")
	case len(s.Consumers) > MaxConsumers:
		return registry.Invalid("consumers", "at most %d", MaxConsumers)
	case maxAge < MinMaxAge || maxAge > MaxMaxAge:
		return registry.Invalid("max_age", "%s to %s", MinMaxAge, MaxMaxAge)
	case drain < MinDrainDeadline || drain > MaxDrainDeadline:
		return registry.Invalid("drain_deadline", "%s to %s", MinDrainDeadline, MaxDrainDeadline)
	case overlap < MinOverlap || overlap > MaxOverlap:
		return registry.Invalid("overlap", "%s to %s", MinOverlap, MaxOverlap)
	case len(s.Spec) > MaxSpecSize:
		return registry.Invalid("spec", "at most %d bytes", MaxSpecSize)
	case s.Pair != "" && strings.EqualFold(s.Pair, s.ID):
		return registry.Invalid("pair", "names another secret")
	}
	slices.SortFunc(s.Consumers, func(a, b credential.AccountID) int { return strings.Compare(a.String(), b.String()) })
	for i, c := range s.Consumers {
		if c.IsZero() || (i > 0 && c == s.Consumers[i-1]) {
			return registry.Invalid("consumers", "each account once")
		}
	}
	if err := registry.CheckText("description", s.Description, registry.MaxDescription, false); err != nil {
		return err
	}
	t, err := s.Schedule.parse()
	if err != nil {
		return err
	}
	if t.every > maxAge {
		return registry.Invalid("max_age", "is %s, shorter than the interval of the schedule, %s, so that the secret would always be overdue", maxAge, t.every)
	}
	return nil
}

// uses is what the secret rests on.
func (s *Secret) uses() []registry.Use {
	var list []registry.Use
	if !s.Shared {
		list = append(list, registry.Use{Tenant: s.Tenant})
	}
	list = append(list, registry.Use{Account: s.Owner})
	for _, c := range s.Consumers {
		if c != s.Owner {
			list = append(list, registry.Use{Account: c})
		}
	}
	return list
}
