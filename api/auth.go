package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Verifier verifies operators' tokens; *verifier.Verifier is one. Its audience
// is <issuer>/admin.
type Verifier interface {
	Verify(ctx context.Context, raw string) (*verifier.Token, error)
}

// operator authenticates the request (RFC 6750) and returns who asks. It
// writes nothing but the challenge header.
func (s *server) operator(w *response, r *http.Request) (registry.By, error) {
	raw, err := authorization(r.Header, "Bearer")
	if err != nil || raw == "" {
		// Without a token the challenge says no more (RFC 6750 section 3.1).
		w.Header()["Www-Authenticate"] = s.bearerChallenge
		w.cause = err
		return registry.By{}, refuse(wire.CodeUnauthenticated, "", "send a bearer token for "+s.admin.String())
	}
	token, err := s.verifier.Verify(r.Context(), raw)
	if err == nil {
		err = s.inGoodStanding(r.Context(), token)
	}
	switch {
	case err == nil:
	case unavailable(err):
		return registry.By{}, refuse(wire.CodeUnavailable, "", "")
	default:
		w.cause = err
		w.Header()["Www-Authenticate"] = s.invalidTokenChallenge
		return registry.By{}, refuse(wire.CodeUnauthenticated, "", "the token is not accepted")
	}
	return registry.By{
		Subject: token.Subject(), ClientID: token.ClientID(), Tenant: token.Tenant(), Roles: token.Scopes(),
		IssuedAt: token.IssuedAt(), RequestID: w.id, IP: ipText(w.ip),
	}, nil
}

// errStanding: the token is good, and who holds it no longer is.
var errStanding = errors.New("the operator's account, tenant or grant is gone")

// inGoodStanding asks the registry whether the operator still is one, and was
// all the time since the token was issued, as far as account and tenant go: its
// tokens live for minutes, a dismissal counts at once. An operator's own
// account presents the token itself; delegation has no place here.
func (s *server) inGoodStanding(ctx context.Context, token *verifier.Token) error {
	return s.store.View(ctx, func(r store.Reader) error {
		if _, err := s.alive(r, token); err != nil {
			return err
		}
		return s.granted(r, token)
	})
}

// alive returns the account that holds a token, if neither the token nor the
// account or tenant behind it was ended since it was issued, or is stopped now.
func (s *server) alive(r store.Reader, token *verifier.Token) (*registry.Account, error) {
	if token.Subject() != token.ClientID() || !token.Actor().IsZero() {
		return nil, errStanding
	}
	if dead, err := revocation.Revoked(r, token.Claims()); err != nil || dead {
		return nil, errors.Join(err, revokedError(dead))
	}
	account, _, err := s.registry.AccountAt(r, token.Subject())
	if err != nil {
		return nil, standing(err)
	}
	if account.Ended(token.IssuedAt()) || account.Disabled || (!account.ExpiresAt.IsZero() && !s.now().Before(account.ExpiresAt)) {
		return nil, errStanding
	}
	if token.Tenant().IsSystem() {
		return account, nil
	}
	tenant, _, err := s.registry.TenantAt(r, token.Tenant())
	if err != nil {
		return nil, standing(err)
	}
	if tenant.Ended(token.IssuedAt()) || tenant.State != registry.TenantActive {
		return nil, errStanding
	}
	return account, nil
}

// granted looks for a grant in force that still allows all of the token's
// roles for its tenant.
func (s *server) granted(r store.Reader, token *verifier.Token) error {
	found, err := s.registry.GrantsAt(r, token.Subject(), s.admin, token.Tenant())
	if err != nil {
		return standing(err)
	}
	now := s.now()
	for _, g := range found {
		if g.Grant.Operator && g.Listed && g.Grant.InForce(now) && g.Grant.Scopes.Contains(token.Scopes()) {
			return nil
		}
	}
	return errStanding
}

func revokedError(dead bool) error {
	if dead {
		return verifier.ErrRevoked
	}
	return nil
}

func standing(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return errStanding
	}
	return err
}

func ipText(ip clientIP) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}

// challenges returns the values of WWW-Authenticate for the realm.
func (s *server) setChallenges(issuer credential.IssuerURL) {
	realm := `realm="` + issuer.String() + `"`
	s.basicChallenge = []string{"Basic " + realm + `, charset="UTF-8"`}
	s.bearerChallenge = []string{"Bearer " + realm}
	s.invalidTokenChallenge = []string{"Bearer " + realm + `, error="invalid_token"`}
	s.scopeChallenge = make(map[registry.Role][]string)
	for _, role := range []registry.Role{registry.RoleViewer, registry.RoleOperator, registry.RoleSecurity, registry.RoleAdmin} {
		s.scopeChallenge[role] = []string{"Bearer " + realm + `, error="insufficient_scope", scope="` + string(role) + `"`}
	}
}
