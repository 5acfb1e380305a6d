package kinds

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// Inspect implements secrets.Kind. It logs in twice: as consumers do, with what
// is published, and as the idle user. What makes a rotation impossible, such as
// a role with a timer of its own or a user that is gone, is an error; what
// another has changed is a drift, and a rotation that is forced heals it.
func (k *StaticPair) Inspect(ctx context.Context, w *secrets.Work) (secrets.Inspection, error) {
	p, err := k.at(w)
	if err != nil {
		return secrets.Inspection{}, err
	}
	if err := p.checkRoles(ctx); err != nil {
		return secrets.Inspection{}, err
	}
	in, err := p.Publish.inspect(ctx, p.kv, w)
	if err != nil {
		return secrets.Inspection{}, err
	}
	look := &inspection{pair: p}
	if err := look.read(ctx, w); err != nil {
		return secrets.Inspection{}, err
	}
	if in.Found != nil {
		maps.Copy(in.Found, applied(look.active, look.vault))
	}
	for _, check := range []func(context.Context, *secrets.Work) (string, error){look.consumers, look.unused} {
		if in.Drift != "" {
			break
		}
		if in.Drift, err = check(ctx, w); err != nil {
			return secrets.Inspection{}, err
		}
	}
	return in, nil
}

// checkRoles holds both roles to what a pair needs.
func (p *pair) checkRoles(ctx context.Context) error {
	var database string
	for _, r := range p.Roles {
		role, err := p.checkRole(ctx, r)
		if err != nil {
			return err
		}
		if database != "" && role.Database != database {
			return fmt.Errorf("the static roles of a pair are for one database: %s is for %s, %s for %s",
				p.Roles[0].Role, database, r.Role, role.Database)
		}
		database = role.Database
	}
	return nil
}

// inspection is what is there of a pair.
type inspection struct {
	*pair
	active PairRole
	idle   PairRole
	vault  vault.StaticCredentials // of the active one
	given  credential.Secret       // what consumers are given; zero: nothing is published
	moved  string                  // the user that they were given where it was published before; "": that one, or none
}

// read finds out which role is in use: the one that is published, else the one
// that the broker published last, else the first.
func (i *inspection) read(ctx context.Context, w *secrets.Work) (err error) {
	now, _, err := latest(ctx, i.kv, i.Publish.Path)
	if err != nil {
		return err
	}
	user, _ := now.Data[fieldUsername].(string)
	active, published := i.byUser(user)
	before, _, known := i.role(w.Old.Handle[handleRole])
	switch {
	case published && known && w.Old.Version == 0 && before != active:
		i.moved = before.Username
	case !published && known:
		active = before
	case !published:
		active = i.Roles[0]
	}
	i.active, i.idle, _ = i.role(active.Role)
	if published {
		i.given, _ = text(now.Data, fieldPassword)
	}
	i.vault, err = i.credentials(ctx, i.active)
	return err
}

// consumers logs in as they do.
func (i *inspection) consumers(ctx context.Context, w *secrets.Work) (drift string, err error) {
	if i.moved != "" {
		return fmt.Sprintf("%s gives consumers %s, and where they were given theirs before it is %s: publish that one there, or --force, which ends its password before they are seen on another",
			i.Publish.Path, i.active.Username, i.moved), nil
	}
	password := i.given
	if password.IsZero() { // the first rotation: they are given what Vault has
		password = i.vault.Password
	}
	err = i.Postgres.login(ctx, i.active.Username, password, nil)
	noted := w.Old.Handle[handleRotated]
	changed := noted != "" && instant(i.vault.LastRotation) != noted
	switch {
	case err != nil && !errors.Is(err, errRefused):
		return "", err
	case err != nil && changed:
		return fmt.Sprintf("the password that consumers have for %s is valid no more: static role %s was rotated in Vault at %s, not by the broker; --force moves them to %s",
			i.active.Username, i.active.Role, instant(i.vault.LastRotation), i.idle.Username), nil
	case err != nil:
		return fmt.Sprintf("the password that consumers have for %s is valid no more: it was changed in the database, not by Vault, or the user is gone; --force moves them to %s",
			i.active.Username, i.idle.Username), nil
	case changed:
		return fmt.Sprintf("vault says that static role %s was rotated at %s, and the broker knows %s; the password that consumers have is still valid: Vault's storage was rolled back, or the database's",
			i.active.Role, instant(i.vault.LastRotation), noted), nil
	case i.vault.TTL <= 0:
		return fmt.Sprintf("vault is about to rotate static role %s by itself, or fails to (ttl 0): see Vault's log; --force moves consumers to %s",
			i.active.Role, i.idle.Username), nil
	}
	return "", nil
}

// unused logs in as the idle user: what fails here would fail in the midst of
// the next rotation.
func (i *inspection) unused(ctx context.Context, _ *secrets.Work) (drift string, err error) {
	now, err := i.credentials(ctx, i.idle)
	if err != nil {
		return "", err
	}
	err = i.Postgres.login(ctx, now.Username, now.Password, nil)
	if !errors.Is(err, errRefused) {
		return "", err
	}
	password := i.given
	if password.IsZero() {
		password = i.vault.Password
	}
	// Whoever may log in may read who else there is.
	err = i.Postgres.login(ctx, i.active.Username, password, func(ctx context.Context, tx pgx.Tx) error {
		return i.lookFor(ctx, tx, i.idle)
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("the password that Vault has for %s, the idle user, is not valid: it was changed in the database, not by Vault; --force sets a new one",
		i.idle.Username), nil
}

// lookFor says why a user can't log in, if it isn't the password.
func (i *inspection) lookFor(ctx context.Context, tx pgx.Tx, r PairRole) error {
	var may, expired bool
	err := tx.QueryRow(ctx, "SELECT rolcanlogin, coalesce(rolvaliduntil < now(), false) FROM pg_catalog.pg_roles WHERE rolname = $1", r.Username).Scan(&may, &expired)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("the database has no user %s, the idle one: make it again with the rights of %s, then vault write -f %s/rotate-role/%s",
			r.Username, i.active.Username, i.Mount, r.Role)
	case err != nil:
		return i.Postgres.explain(i.active.Username, err)
	case !may:
		return fmt.Errorf("the idle user %s may not log in: ALTER ROLE %q LOGIN", r.Username, r.Username)
	case expired:
		return fmt.Errorf("the idle user %s has ended (rolvaliduntil): ALTER ROLE %q VALID UNTIL 'infinity'", r.Username, r.Username)
	}
	return nil
}
