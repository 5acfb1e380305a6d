package kinds

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// MinRotationPeriod is the least rotation_period that a static role of a pair
// may have. Vault's own timer knows nothing of consumers: when it fires, theirs
// is a wrong password. Each rotation starts it anew, and a secret is rotated
// every two years at least, so that with ten years it never fires. Vault
// takes 5 s to 292 years.
const MinRotationPeriod = 10 * 365 * 24 * time.Hour

// checkRole refuses a static role whose password changes by Vault's own timer.
func (p *pair) checkRole(ctx context.Context, r PairRole) (vault.StaticRole, error) {
	role, err := p.db.StaticRole(ctx, r.Role)
	if err != nil {
		return role, p.explain(r, err)
	}
	if role.RotationSchedule != "" || role.RotationPeriod < MinRotationPeriod {
		timer := fmt.Sprintf("every %s", role.RotationPeriod)
		if role.RotationSchedule != "" {
			timer = fmt.Sprintf("by the schedule %q", role.RotationSchedule)
		}
		return role, fmt.Errorf("vault would rotate static role %s by itself, %s, whoever uses it: vault write %s/static-roles/%s username=%s rotation_period=%dh",
			p.path(r), timer, p.Mount, r.Role, r.Username, int(MinRotationPeriod/time.Hour))
	}
	return role, nil
}

func (p *pair) path(r PairRole) string { return p.Mount + "/" + r.Role }

// credentials reads what Vault has for a role.
func (p *pair) credentials(ctx context.Context, r PairRole) (vault.StaticCredentials, error) {
	now, err := p.db.StaticCredentials(ctx, r.Role)
	switch {
	case err != nil:
		return now, p.explain(r, err)
	case now.Username != r.Username:
		return now, fmt.Errorf("static role %s is for the user %q, and the spec says %q", p.path(r), now.Username, r.Username)
	case now.Password.IsZero():
		return now, fmt.Errorf("static role %s has no password: its credential_type must be password", p.path(r))
	}
	return now, nil
}

// Words of Vault by which its failures are told apart; all are answers 400 or 500.
const (
	saysNoRole     = "unknown role"
	saysNoRoleToo  = "no static role found"
	saysNotAllowed = "is not an allowed role"
	saysRotating   = "unable to finish rotating credentials"
)

// noRoleError: Vault doesn't know a static role, so it did nothing with it.
type noRoleError struct{ path string }

func (e *noRoleError) Error() string { return "vault has no static role " + e.path }

func (e *noRoleError) Is(target error) bool { return target == secrets.ErrNotDone }

var sqlState = regexp.MustCompile(`SQLSTATE ([0-9A-Z]{5})`)

// explain says what an error of Vault about a role means, and what to do. Vault
// answers 500 where the database refuses; that is no Vault that is away. What
// the database said may repeat the statement, so only its code is kept.
func (p *pair) explain(r PairRole, err error) error {
	var answer *vault.Error
	if !errors.As(err, &answer) {
		return fromVault(err)
	}
	says := func(words string) bool {
		return slices.ContainsFunc(answer.Messages, func(m string) bool { return strings.Contains(m, words) })
	}
	code := sqlState.FindStringSubmatch(strings.Join(answer.Messages, " "))
	switch {
	case answer.Status == http.StatusNotFound, says(saysNoRole), says(saysNoRoleToo):
		return fmt.Errorf("%w: vault write %s/static-roles/%s db_name=NAME username=%s rotation_period=%dh",
			&noRoleError{p.path(r)}, p.Mount, r.Role, r.Username, int(MinRotationPeriod/time.Hour))
	case answer.Status == http.StatusForbidden:
		return fmt.Errorf("the broker's policy in Vault needs read on %s/static-roles/%s and static-creds/%s, and update on rotate-role/%s: %w",
			p.Mount, r.Role, r.Role, r.Role, fromVault(err))
	case says(saysNotAllowed):
		return fmt.Errorf("static role %s is not among the allowed_roles of its connection in Vault: add it with vault write %s/config/NAME allowed_roles=…", p.path(r), p.Mount)
	case !says(saysRotating):
		return fromVault(err)
	case code == nil:
		return fmt.Errorf("vault can't reach the database of static role %s, or can't log in there: see Vault's log; vault goes on trying by itself", p.path(r))
	case code[1] == "42704":
		return fmt.Errorf("vault can't rotate static role %s: the database has no user %s (SQLSTATE 42704); make it again, vault goes on trying by itself", p.path(r), r.Username)
	case code[1] == "42501":
		return fmt.Errorf("vault can't rotate static role %s: its own user may not change %s (SQLSTATE 42501); vault goes on trying by itself", p.path(r), r.Username)
	}
	return fmt.Errorf("vault can't rotate static role %s: the database refuses (SQLSTATE %s); vault goes on trying by itself", p.path(r), code[1])
}
