package registry

import (
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Role is what an operator may do; as a scope token, its own name.
type Role string

// The roles. Each includes the ones before it.
const (
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleSecurity Role = "security"
	RoleAdmin    Role = "admin"
)

var ladder = []Role{RoleViewer, RoleOperator, RoleSecurity, RoleAdmin}

// Includes reports whether scopes, read as roles, reach role. An unknown role
// is reached by none.
func Includes(scopes credential.Scopes, role Role) bool {
	reached := false
	for _, r := range ladder {
		if r == role {
			reached = true
		}
		if reached && scopes.Has(string(r)) {
			return true
		}
	}
	return false
}

// action is one thing that operators do here.
type action string

const (
	actRead             action = "read"
	actCreate           action = "create"
	actUpdate           action = "update"
	actAddCredential    action = "add credential"
	actSuspend          action = "suspend"
	actDelete           action = "delete"
	actRevoke           action = "revoke tokens"
	actRelabel          action = "change a label that a grant uses"
	actException        action = "declare or approve any_tenant"
	actClientSecret     action = "create client secret"
	actRemoveCredential action = "remove credential"
	actIssuer           action = "change trusted issuers"
	actOperator         action = "change operators"
	// actPrivileged: whatever could make an operator out of somebody else, such
	// as a new key for an account that is one.
	actPrivileged action = "change what an operator signs in with"
	actEmpowerAny action = "change an account that has an any_tenant grant"
	actEndLease   action = "end a lease"

	actDeclareSecret   action = "declare a shared secret"
	actSensitiveSecret action = "declare a shared secret that makes client secrets"
	actRotateSecret    action = "rotate a shared secret"
	actForceSecret     action = "force a rotation"
	actDeleteSecret    action = "delete a shared secret"
)

// roleFor is the one table of which role an action needs.
var roleFor = map[action]Role{
	actRead:             RoleViewer,
	actCreate:           RoleOperator,
	actUpdate:           RoleOperator,
	actAddCredential:    RoleOperator,
	actSuspend:          RoleSecurity,
	actDelete:           RoleSecurity,
	actRevoke:           RoleSecurity,
	actRelabel:          RoleSecurity,
	actException:        RoleSecurity,
	actClientSecret:     RoleSecurity,
	actRemoveCredential: RoleSecurity,
	actIssuer:           RoleSecurity,
	actOperator:         RoleAdmin,
	actPrivileged:       RoleAdmin,
	actEmpowerAny:       RoleSecurity,
	actEndLease:         RoleSecurity,

	actDeclareSecret:   RoleOperator,
	actSensitiveSecret: RoleSecurity,
	actRotateSecret:    RoleOperator,
	actForceSecret:     RoleSecurity,
	actDeleteSecret:    RoleSecurity,
}

// By is the operator who asks: whom the admin API has verified, and why.
type By struct {
	Subject  credential.AccountID // the operator
	ClientID credential.AccountID // the account that authenticated
	// Tenant bounds the operator: credential.System is the whole broker, any
	// other that tenant alone. The zero Tenant may do nothing.
	Tenant credential.Tenant
	Roles  credential.Scopes
	// IssuedAt is when the operator's token was issued. The zero Time is before
	// any epoch.
	IssuedAt  time.Time
	Reason    string // required for changes, at most MaxReason characters
	RequestID string
	IP        string
}

// may returns ErrForbidden unless the operator's roles reach the action.
func (by By) may(a action) error {
	role, known := roleFor[a]
	if !known || by.Tenant.IsZero() || by.Subject.IsZero() || !Includes(by.Roles, role) {
		return fmt.Errorf("%w: to %s needs the role %s", ErrForbidden, a, role)
	}
	return nil
}

// everywhere returns ErrForbidden unless the operator is bounded to no tenant.
func (by By) everywhere() error {
	if !by.Tenant.IsSystem() {
		return fmt.Errorf("%w: only for operators of the whole broker", ErrForbidden)
	}
	return nil
}

// sees reports whether an object with this home is within the operator's
// bounds. Objects of the broker itself have the home credential.System.
func (by By) sees(home credential.Tenant) bool {
	return by.Tenant.IsSystem() || (!by.Tenant.IsZero() && by.Tenant == home)
}

// mayEmpower refuses who must not get at all that an account is granted: an
// operator's account is for admins, one with an any_tenant grant for security,
// and one whose grants reach beyond a tenant is not for operators bounded to
// that tenant, even if it lives there.
func (c *change) mayEmpower(id credential.AccountID, isOperator bool) error {
	if isOperator {
		if err := c.may(actPrivileged); err != nil {
			return err
		}
	}
	if !c.by.Tenant.IsSystem() {
		if err := c.confined(id, c.by.Tenant); err != nil {
			return err
		}
	}
	open, err := idsUnder(c, grantsOpen, id.String())
	if err != nil {
		return err
	}
	for _, grantID := range open {
		grant, err := load(c, grants, grantID, decodeGrant)
		if err != nil {
			return err
		}
		if grant.AnyTenant != nil {
			return c.may(actEmpowerAny)
		}
	}
	return nil
}

// confined refuses an account that has a grant which is not of that tenant alone.
func (c *change) confined(id credential.AccountID, tenant credential.Tenant) error {
	held, err := idsUnder(c, grantsAccount, id.String())
	if err != nil {
		return err
	}
	for _, grantID := range held {
		share, _, err := lookup(c, grantsTenant, tenant.String(), grantID)
		if err != nil {
			return err
		}
		if share != shareSole {
			return fmt.Errorf("%w: the account's grants reach beyond the tenant %s", ErrForbidden, tenant)
		}
	}
	return nil
}
