package kinds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// StaticPair rotates a pair of users of PostgreSQL, for whom Vault has static
// roles. A user has one password, so that one alone can't be rotated without a
// gap: consumers use one of the two, the idle one gets a new password, is proven
// by a login and published, and when every consumer was seen on it, the password
// of the former one is changed for one that nobody has.
type StaticPair struct {
	databases Databases
	stores    Stores
	layout    Layout
}

// Database is Vault's database engine at one mount; *vault.Database is one.
type Database interface {
	StaticRole(ctx context.Context, name string) (vault.StaticRole, error)
	StaticCredentials(ctx context.Context, name string) (vault.StaticCredentials, error)
	RotateStaticRole(ctx context.Context, name string) error
}

// Databases finds the database engine at a mount of a namespace.
type Databases func(namespace, mount string) Database

// NewStaticPair returns the kind.
func NewStaticPair(databases Databases, stores Stores, layout Layout) *StaticPair {
	return &StaticPair{databases, stores, layout}
}

// What is published beside the broker's own fields.
const (
	fieldUsername = "username"
	fieldPassword = "password"
)

// What a handle says of a pair. The times are Vault's last_vault_rotation, by
// which a password is told from the one before it.
const (
	handleRole       = "role"        // whose password this version is
	handleRotated    = "rotated"     // when Vault made the password that was proven
	handleApplyFrom  = "apply_from"  // of the role, before its rotation
	handleRetireFrom = "retire_from" // of the former role, before its rotation
)

// Name implements secrets.Kind.
func (*StaticPair) Name() string { return "database-static-pair" }

// Backend implements secrets.Kind.
func (*StaticPair) Backend() string { return backendVault }

// Steps implements secrets.Kind.
func (*StaticPair) Steps() []secrets.Step {
	return []secrets.Step{secrets.Apply, secrets.Prove, secrets.Promote, secrets.Drain, secrets.Retire, secrets.Clean}
}

// Effects implements secrets.Kind.
func (*StaticPair) Effects(step secrets.Step) []string {
	return map[secrets.Step][]string{
		secrets.Apply: {"rotate"}, secrets.Promote: {"publish"}, secrets.Retire: {"rotate", "destroy"},
		secrets.Clean: fenceEffects,
	}[step]
}

// Check implements secrets.Kind. The broker shows passwords of Vault's to where
// the spec says, and asks there what it says: that is for operators of the whole
// broker who may make client secrets.
func (k *StaticPair) Check(raw json.RawMessage, about secrets.Subject) (secrets.Checked, error) {
	spec, err := readPair(raw)
	if err != nil {
		return secrets.Checked{}, err
	}
	if err := spec.check(k.layout, about); err != nil {
		return secrets.Checked{}, err
	}
	if spec.Publish.Mount == "" {
		spec.Publish.Mount = k.layout.Mount
	}
	return secrets.Checked{Spec: canonical(spec), Resources: spec.resources(k.layout), Whole: true, Sensitive: true}, nil
}

// pair is what a step is about.
type pair struct {
	StaticPairSpec
	db Database
	kv Store
}

func (k *StaticPair) at(w *secrets.Work) (*pair, error) {
	spec, err := stored[StaticPairSpec](w)
	if err != nil {
		return nil, err
	}
	return &pair{spec, k.databases(spec.Namespace, spec.Mount), k.stores(spec.Publish.Namespace, spec.Publish.Mount)}, nil
}

// idle is the role that a rotation takes: the one that is not in use.
func (p *pair) idle(w *secrets.Work) PairRole {
	_, other, known := p.role(w.Old.Handle[handleRole])
	if !known {
		return p.Roles[1]
	}
	return other
}

// Prepare implements secrets.Kind.
func (k *StaticPair) Prepare(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	p, err := k.at(w)
	if err != nil {
		return nil, err
	}
	switch w.Step {
	case secrets.Apply:
		if err := p.notInUse(ctx, p.idle(w)); err != nil {
			return nil, err
		}
		return p.noteRotation(ctx, w, p.idle(w), handleApplyFrom)
	case secrets.Retire:
		return p.noteRotation(ctx, w, p.former(w), handleRetireFrom)
	}
	return nil, nil
}

// notInUse refuses the role whose user consumers are given: the record of a store
// that was restored can be of a time when that one was idle.
func (p *pair) notInUse(ctx context.Context, r PairRole) error {
	now, user, err := p.given(ctx)
	if err == nil && user == r.Username {
		err = drift("version %d of %s gives consumers %s, which was idle when the rotation began: the broker's store is older, or another has written there",
			now.Version, p.Publish.Path, r.Username)
	}
	return err
}

// given is what consumers are given, and whose login that is; "": nobody's.
func (p *pair) given(ctx context.Context) (now vault.KVValue, user string, err error) {
	now, _, err = latest(ctx, p.kv, p.Publish.Path)
	user, _ = now.Data[fieldUsername].(string)
	return now, user, err
}

// noteRotation notes when a role was rotated last, unless that is noted and it
// has been rotated since: then the step was carried out in part.
func (p *pair) noteRotation(ctx context.Context, w *secrets.Work, r PairRole, name string) (secrets.Handle, error) {
	if _, err := p.checkRole(ctx, r); err != nil {
		return nil, err
	}
	now, err := p.credentials(ctx, r)
	if err != nil {
		return nil, err
	}
	if _, noted := w.New.Handle[name]; noted && rotatedSince(now, w.New.Handle[name]) {
		return nil, nil
	}
	return secrets.Handle{name: instant(now.LastRotation)}, nil
}

// instant is a time as Vault tells it: to the nanosecond.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// rotatedSince reports whether Vault has changed the password after what was
// noted. A time before that, of a storage that was rolled back, is no rotation.
func rotatedSince(now vault.StaticCredentials, noted string) bool {
	then, err := time.Parse(time.RFC3339Nano, noted)
	return err == nil && now.LastRotation.After(then)
}

// Do implements secrets.Kind.
func (k *StaticPair) Do(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	p, err := k.at(w)
	if err != nil {
		return nil, err
	}
	switch w.Step {
	case secrets.Apply:
		return p.apply(ctx, w)
	case secrets.Prove:
		return p.prove(ctx, w)
	case secrets.Promote:
		return p.promote(ctx, w)
	case secrets.Retire:
		return nil, p.retire(ctx, w)
	case secrets.Clean: // nobody was given the new password of one that failed, and nobody will be
		now, _, err := p.Publish.fence(ctx, p.kv, w)
		return now, err
	}
	return nil, fmt.Errorf("database-static-pair: no step %s", w.Step)
}

// Look implements secrets.Kind.
func (k *StaticPair) Look(ctx context.Context, w *secrets.Work) (secrets.Finding, error) {
	p, err := k.at(w)
	if err != nil {
		return secrets.Finding{}, err
	}
	switch w.Step {
	case secrets.Apply:
		return p.lookApplied(ctx, w)
	case secrets.Promote:
		return p.Publish.lookPublished(ctx, p.kv, w)
	case secrets.Retire:
		return p.lookRetired(ctx, w)
	case secrets.Clean:
		return p.Publish.lookFenced(ctx, p.kv, w)
	}
	return secrets.Finding{}, fmt.Errorf("database-static-pair: nothing to look for in %s", w.Step)
}

// apply gives the idle role a new password, unless Vault has done so by itself
// after an earlier try that failed.
func (p *pair) apply(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	r := p.idle(w)
	now, err := p.credentials(ctx, r)
	if err != nil || rotatedSince(now, w.New.Handle[handleApplyFrom]) {
		return applied(r, now), err
	}
	if err := w.Effect("rotate", func() error { return p.db.RotateStaticRole(ctx, r.Role) }); err != nil {
		return nil, p.explain(r, err)
	}
	now, err = p.credentials(ctx, r)
	return applied(r, now), err
}

func applied(r PairRole, now vault.StaticCredentials) secrets.Handle {
	return secrets.Handle{handleRole: r.Role, handleRotated: instant(now.LastRotation)}
}

// lookApplied finds out whether Vault has changed the idle role's password.
// After one that failed at the database, Vault tries again by itself; whoever
// of the two it was, the password is new and nobody has it.
func (p *pair) lookApplied(ctx context.Context, w *secrets.Work) (secrets.Finding, error) {
	r := p.idle(w)
	now, err := p.credentials(ctx, r)
	if gone := (*noRoleError)(nil); errors.As(err, &gone) {
		return secrets.Finding{What: secrets.Elsewhere, Note: gone.Error()}, nil
	}
	if err != nil {
		return secrets.Finding{}, err
	}
	if !rotatedSince(now, w.New.Handle[handleApplyFrom]) {
		return secrets.Finding{What: secrets.FoundNot}, nil
	}
	return secrets.Finding{What: secrets.FoundDone, Handle: applied(r, now)}, nil
}

// prove logs in with what Vault has now, and notes which password that was.
func (p *pair) prove(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	r := p.idle(w)
	now, err := p.credentials(ctx, r)
	if err != nil {
		return nil, err
	}
	err = p.Postgres.login(ctx, now.Username, now.Password, p.query(now.Username))
	if errors.Is(err, errRefused) {
		return nil, fmt.Errorf("%w: the password that Vault has for static role %s is not the one in the database; Vault's log says whether it tries to set it", err, r.Role)
	}
	return applied(r, now), err
}

// promote publishes the password that was proven, and no other.
func (p *pair) promote(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	r := p.idle(w)
	now, err := p.credentials(ctx, r)
	if err != nil {
		return nil, err
	}
	if instant(now.LastRotation) != w.New.Handle[handleRotated] {
		return nil, drift("static role %s was rotated by another after its password was proven", r.Role)
	}
	return p.Publish.publish(ctx, p.kv, w, map[string]any{
		fieldUsername: now.Username, fieldPassword: string(now.Password.Reveal()),
	})
}

// former is the role that consumers had before: the one that isn't the new one.
func (p *pair) former(w *secrets.Work) PairRole {
	_, other, _ := p.role(w.New.Handle[handleRole])
	return other
}

// retire changes the former role's password and destroys what was published of it.
func (p *pair) retire(ctx context.Context, w *secrets.Work) error {
	// Whoever has put the former password back may be using it.
	if err := p.stillOurs(ctx, w); err != nil {
		return err
	}
	r := p.former(w)
	// Not with force either: the next rotation begins with what is given, and ends the other.
	if _, user, err := p.given(ctx); err != nil || user == r.Username {
		return err
	}
	ended, err := p.ended(ctx, w, r)
	if err != nil {
		return err
	}
	if !ended {
		if err := w.Effect("rotate", func() error { return p.db.RotateStaticRole(ctx, r.Role) }); err != nil {
			return p.explain(r, err)
		}
		if ended, err = p.ended(ctx, w, r); err != nil {
			return err
		}
	}
	if !ended {
		return fmt.Errorf("the former password of %s may still be valid: Vault has changed the one of static role %s, and the database doesn't take it; check rotation_statements, and Vault's log", r.Username, r.Role)
	}
	return p.Publish.retire(ctx, p.kv, w)
}

func (p *pair) stillOurs(ctx context.Context, w *secrets.Work) error {
	now, gone, err := latest(ctx, p.kv, p.Publish.Path)
	if err != nil || w.Forced {
		return err
	}
	if ours := number(w.New.Handle, handleVersion); gone || now.Version != ours || !written(now, w.Nonce) {
		return drift("version %d of %s is not the broker's, which is %d", now.Version, p.Publish.Path, ours)
	}
	// It was proven days ago, perhaps; without it consumers would have none.
	user, _ := now.Data[fieldUsername].(string)
	password, _ := text(now.Data, fieldPassword)
	if err = p.Postgres.login(ctx, user, password, nil); errors.Is(err, errRefused) {
		return drift("the password that consumers have for %s is valid no more, so the former login does not end", user)
	}
	return err
}

// ended reports whether the former role has another password than consumers
// had: Vault says so, and the database takes the new one, so not the old one.
func (p *pair) ended(ctx context.Context, w *secrets.Work, r PairRole) (bool, error) {
	now, err := p.credentials(ctx, r)
	if err != nil || !rotatedSince(now, w.New.Handle[handleRetireFrom]) {
		return false, err
	}
	if err = p.Postgres.login(ctx, now.Username, now.Password, nil); errors.Is(err, errRefused) {
		return false, nil
	}
	return err == nil, err // the new one, so not the old one
}

func (p *pair) lookRetired(ctx context.Context, w *secrets.Work) (secrets.Finding, error) {
	ended, err := p.ended(ctx, w, p.former(w))
	if err != nil {
		return secrets.Finding{}, err
	}
	if !ended {
		return secrets.Finding{What: secrets.FoundNot}, nil
	}
	return p.Publish.lookRetired(ctx, p.kv, w)
}
