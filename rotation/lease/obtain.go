package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
)

// Request asks for a lease.
type Request struct {
	Of  credential.Leasable
	TTL time.Duration // whole seconds, only shortens; 0: the target's
}

// Granted is a lease that was made or renewed, durably recorded.
type Granted struct {
	ID        string
	ExpiresAt time.Time
	// Data is a JSON object: of a database user "username" and "password", of a
	// KV value what is there. None after the renewal of a database user.
	Data credential.Secret
}

// Obtain makes a lease. Nothing is known to anybody but Vault before the commit
// that decided again, with its audit record, is durable.
//
// Errors: ErrNotGranted, ErrToken, ErrTooMany, ErrOver, ErrNoValue, ErrUnavailable; those
// of the store.
func (m *Manager) Obtain(ctx context.Context, h Holder, q Request) (Granted, error) {
	granted, err := m.obtain(ctx, h, q)
	return granted, m.answered(ctx, h, q.Of, "", err)
}

func (m *Manager) obtain(ctx context.Context, h Holder, q Request) (Granted, error) {
	done, err := m.turns.take(ctx, h.Claims.Tenant, h.Claims.Subject)
	if err != nil {
		return Granted{}, err
	}
	defer done()
	now := m.instant()
	l := &row{
		ID: newID(now), Of: q.Of, Tenant: h.Claims.Tenant, Account: h.Claims.Subject, State: Creating,
		CreatedAt: now, UsedAt: now,
	}
	if q.Of.Kind() == credential.LeaseKV {
		return m.obtainValue(ctx, h, q, l)
	}
	return m.obtainUser(ctx, h, q, l)
}

// fill decides on a new lease in a commit: what it rests on, whether there is
// room for it, and how long it lives.
func (m *Manager) fill(tx store.Tx, h Holder, q Request, l *row) (Target, error) {
	s, target, err := m.admit(tx, h, l)
	if err != nil {
		return target, err
	}
	l.Mount, l.Made, l.Until = target.Mount, target.mark(), l.CreatedAt.Add(target.MaxLife)
	life, err := m.life(&s, target, l, q.TTL)
	if err != nil {
		return target, err
	}
	l.ExpiresAt = m.instant().Add(life)
	return target, nil
}

// obtainUser journals the lease, has Vault make the user, and records it.
func (m *Manager) obtainUser(ctx context.Context, h Holder, q Request, l *row) (Granted, error) {
	session := m.vault.Session()
	if session.Down != nil {
		return Granted{}, fmt.Errorf("%w: %w", ErrUnavailable, session.Down)
	}
	l.Role = RolePrefix(m.issuer) + l.ID
	l.Login, l.LoginEnds = session.Since, session.Expires
	var target Target
	err := m.update(ctx, func(tx store.Tx) (err error) {
		if target, err = m.fill(tx, h, q, l); err != nil {
			return err
		}
		if err := room(tx, l); err != nil {
			return err
		}
		l.Connection = target.Connection
		return l.put(tx, nil)
	})
	if err != nil {
		return Granted{}, err
	}
	m.at("journalled")
	// From here on the row tells what to look for. A caller that goes away
	// stops Vault's work no sooner than a crash would.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	user, ends, err := m.makeUser(ctx, l, target)
	if err != nil {
		return Granted{}, m.abandon(ctx, l, err)
	}
	m.at("made")
	return m.activate(ctx, h, q, l, user, ends)
}

// makeUser writes the lease's own role and has Vault make the user. ends is when
// Vault ends it, or a little earlier: it may have limits of its own.
func (m *Manager) makeUser(ctx context.Context, l *row, t Target) (user vault.Credentials, ends time.Time, err error) {
	ttl := l.ExpiresAt.Sub(m.instant()).Truncate(time.Second)
	if ttl < time.Second {
		return user, ends, ErrOver
	}
	err = m.vault.PutRole(ctx, l.Mount, l.Role, vault.Role{
		Database: t.Connection, DefaultTTL: ttl, MaxTTL: max(ttl, l.Until.Sub(m.instant()).Truncate(time.Second)),
		CreationStatements:   []string{createUser(l.Tenant, t)},
		RenewStatements:      []string{renewUser},
		RevocationStatements: []string{dropUser},
	})
	if err != nil {
		return user, ends, err
	}
	m.at("role")
	asked := m.instant()
	user, err = m.vault.Credentials(ctx, l.Mount, l.Role)
	if err != nil {
		err = &halfway{err}
	}
	return user, asked.Add(user.LeaseDuration), err
}

// halfway: the role is there, and no user that is known.
type halfway struct{ cause error }

func (e *halfway) Error() string { return e.cause.Error() }
func (e *halfway) Unwrap() error { return e.cause }

// activate decides again and records the lease, which ends no later than Vault
// ends it.
func (m *Manager) activate(ctx context.Context, h Holder, q Request, l *row, user vault.Credentials, ends time.Time) (Granted, error) {
	made := l.copy()
	made.State, made.Lease, made.User, made.ExpiresAt = Active, user.LeaseID, user.Username, earlier(l.ExpiresAt, ends)
	made.Kept = ends
	var refused error
	err := m.update(ctx, func(tx store.Tx) error {
		refused = nil
		cur, err := load(tx, l.ID)
		if err != nil {
			return err
		}
		if cur.version != l.version { // taken for abandoned
			return ErrUnavailable
		}
		checked := made.copy()
		if _, refused = m.fill(tx, h, q, checked); refused != nil {
			if !isRefusal(refused) {
				return refused
			}
			return m.toEnd(tx, made, cur, reasonAbandoned, time.Time{})
		}
		if checked.ExpiresAt.Before(made.ExpiresAt) { // meanwhile something ends earlier
			made.ExpiresAt = checked.ExpiresAt
		}
		r := h.asked(m.record(made, "lease.created", "user "+made.User))
		r.Expires = made.ExpiresAt
		tx.Append(r)
		return made.put(tx, cur)
	})
	switch {
	case err != nil:
		m.Wake() // the row is as it was, or nobody knows: it is looked at in its time
		return Granted{}, err
	case refused != nil:
		m.Wake()
		return Granted{}, refused
	}
	m.at("recorded")
	data, err := json.Marshal(map[string]string{"username": user.Username, "password": string(user.Password.Reveal())})
	if err != nil {
		return Granted{}, err
	}
	return Granted{ID: made.ID, ExpiresAt: made.ExpiresAt, Data: credential.NewSecret(data)}, nil
}

// isRefusal reports whether the holder is told no, as against a failure of ours.
func isRefusal(err error) bool {
	return errors.Is(err, ErrNotGranted) || errors.Is(err, ErrToken) || errors.Is(err, ErrOver)
}

// abandon gives up a lease that Vault didn't make, or perhaps did.
func (m *Manager) abandon(ctx context.Context, l *row, cause error) error {
	defer m.Wake()
	var settle time.Time
	uncertain := errors.Is(cause, vault.ErrUncertain) && !tooManyLeftovers(cause) // then the database has said no
	if uncertain {                                                                // Vault may still be making the role, or the user
		settle = m.instant().Add(m.settle)
	}
	half := (*halfway)(nil)
	nothing := errors.Is(cause, vault.ErrUnavailable) && !uncertain && !errors.As(cause, &half)
	err := m.update(ctx, func(tx store.Tx) error {
		cur, err := load(tx, l.ID)
		if err != nil || cur.version != l.version {
			return err
		}
		if nothing { // Vault was not there: not even the role is
			return cur.remove(tx)
		}
		return m.toEnd(tx, cur.copy(), cur, reasonAbandoned, settle)
	})
	if err != nil {
		m.log.Warn("a lease that was not made is left to be looked at", "lease", l.ID, "error", err)
	}
	if isRefusal(cause) {
		return cause
	}
	if tooManyLeftovers(cause) {
		m.leftovers.Add(1)
		m.log.Error("a tenant gets no more users of a database: too many of its ended ones can't be dropped there",
			"tenant", l.Tenant, "of", l.Of.String(), "advice", "SELECT * FROM tenantbroker.check() names them and what to do")
		return ErrLeftovers
	}
	m.log.Warn("a database user could not be made", "lease", l.ID, "tenant", l.Tenant, "of", l.Of.String(), "error", bounded(cause))
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

// room holds a new lease to the limits.
func room(tx store.Tx, l *row) error {
	for _, limit := range []struct {
		table  store.Table
		prefix string
		most   int
		state  func(State) bool
		what   string
	}{
		{byTenant, store.Key(l.Tenant.String(), l.Account.String(), ""), MaxPerHolder, live, "of this account in this tenant"},
		{byTenant, store.Key(l.Tenant.String(), ""), MaxPerTenant, live, "of this tenant"},
		{byAccount, store.Key(l.Account.String(), ""), MaxPerAccount, live, "of this account"},
		{byTenant, store.Key(l.Tenant.String(), ""), MaxUnfinished, isEnding, "of this tenant that are being ended"},
	} {
		n := 0
		for at, err := range tx.Scan(limit.table, limit.prefix, "") {
			if err != nil {
				return err
			}
			if limit.state(State(at.Value)) {
				n++
			}
		}
		if n >= limit.most {
			return fmt.Errorf("%w: %d %s", ErrTooMany, limit.most, limit.what)
		}
	}
	return nil
}

func live(s State) bool     { return s != Ending }
func isEnding(s State) bool { return s == Ending }

// The statements of PostgreSQL, for deploy/postgres/tenantbroker.sql. Vault
// fills in {{…}}; a tenant's grammar, and a base role's, need no quoting.
const (
	renewUser = "SELECT tenantbroker.renew_user('{{name}}', '{{expiration}}')"
	dropUser  = "SELECT tenantbroker.drop_user('{{name}}')"
)

// dropNamed is dropUser for a name that Vault doesn't fill in. It is in hex, as
// Vault cuts statements at semicolons and looks for braces in them.
func dropNamed(user string) string {
	return fmt.Sprintf("SELECT tenantbroker.drop_user(convert_from(decode('%x', 'hex'), 'UTF8'))", user)
}

func createUser(tenant credential.Tenant, t Target) string {
	return fmt.Sprintf("SELECT tenantbroker.create_user('{{name}}', '{{password}}', '{{expiration}}', '%s', '%s', %d)",
		tenant, t.BaseRole, t.Connections)
}

// leftoversSaid is how tenantbroker.create_user begins to say that it makes no
// more users for a tenant whose ended ones can't be dropped.
const leftoversSaid = "tenantbroker: too many leftovers"

// tooManyLeftovers reports whether the database said so.
func tooManyLeftovers(err error) bool {
	said := (*vault.Error)(nil)
	return errors.As(err, &said) && slices.ContainsFunc(said.Messages, func(m string) bool { return strings.Contains(m, leftoversSaid) })
}

// bounded is an error's text as it is kept and shown.
func bounded(err error) string {
	s := err.Error()
	if len(s) > maxErrorLength {
		s = s[:maxErrorLength]
	}
	return s
}
