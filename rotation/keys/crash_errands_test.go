package keys

import (
	"context"
	"errors"
	"os"
	"time"
)

// errands says what is done, so that a process that finds it half done can do it
// again, and how the world looks in the end.
var errands = map[string]struct {
	prepare   func(context.Context, *errandWorld) error // nobody is killed in it
	rotateKEK bool                                      // after it
	do        func(context.Context, *errandWorld) error
	want      outcome
}{
	"first start": {
		do: func(ctx context.Context, w *errandWorld) error { return w.lead(ctx, w.transit) },
		want: outcome{
			States: map[State]int{Active: 1, Standby: 1}, Homes: map[string]int{TransitHome: 2},
			Records: map[string]int{KeyPublished: 2, KeyActivated: 1}, Versions: 2, Verify: 1,
		},
	},
	"rotation": {
		prepare: func(ctx context.Context, w *errandWorld) error { return w.begin(ctx, w.transit) },
		do: func(ctx context.Context, w *errandWorld) error {
			return errors.Join(w.until(DefaultRotation), w.lead(ctx, w.transit))
		},
		want: outcome{
			States: map[State]int{Active: 1, Standby: 1}, Homes: map[string]int{TransitHome: 2},
			Records:  map[string]int{KeyPublished: 3, KeyActivated: 2, KeyRetired: 1, KeyRemoved: 1},
			Versions: 3, Sign: 2, Verify: 2,
		},
	},
	"rotation by an operator": {
		prepare: func(ctx context.Context, w *errandWorld) error { return w.begin(ctx, w.transit) },
		do: func(ctx context.Context, w *errandWorld) error {
			return w.lead(ctx, w.transit, func(m *Manager, former string) error {
				if active, err := m.Active(); err != nil || active.KeyID() != former {
					return err // it was done
				}
				// A standby is watched anew by each process.
				return errors.Join(w.pass(10*time.Minute), m.Tick(ctx), m.Rotate(ctx, operator("operator"), RotateOptions{}))
			})
		},
		want: outcome{
			States: map[State]int{Active: 1, Standby: 1}, Homes: map[string]int{TransitHome: 2},
			Records:  map[string]int{KeyPublished: 3, KeyActivated: 2, KeyRetired: 1, KeyRemoved: 1},
			Versions: 3, Sign: 2, Verify: 2,
		},
	},
	"emergency": {
		prepare: func(ctx context.Context, w *errandWorld) error { return w.begin(ctx, w.transit) },
		do: func(ctx context.Context, w *errandWorld) error {
			return w.lead(ctx, w.transit, func(m *Manager, former string) error {
				if err := m.Revoke(ctx, operator("security"), former, "stolen"); !errors.Is(err, ErrRevoked) {
					return err
				}
				return nil // it was done
			})
		},
		want: outcome{
			States: map[State]int{Active: 1, Standby: 1, Revoked: 1}, Homes: map[string]int{TransitHome: 3},
			Records:  map[string]int{KeyPublished: 3, KeyActivated: 2, KeyRevoked: 1},
			Versions: 3, Sign: 2, Verify: 2,
		},
	},
	"from sealed keys to Vault": {
		prepare: func(ctx context.Context, w *errandWorld) error { return w.begin(ctx, w.sealed) },
		do:      func(ctx context.Context, w *errandWorld) error { return w.lead(ctx, w.transit) },
		want: outcome{
			States: map[State]int{Active: 1, Standby: 1}, Homes: map[string]int{TransitHome: 2},
			Records:  map[string]int{KeyPublished: 4, KeyActivated: 2, KeyRetired: 1, KeyRemoved: 2},
			Versions: 2, Verify: 1,
		},
	},
	"from Vault to sealed keys": {
		prepare: func(ctx context.Context, w *errandWorld) error { return w.begin(ctx, w.transit) },
		do:      func(ctx context.Context, w *errandWorld) error { return w.lead(ctx, w.sealed) },
		want: outcome{
			States: map[State]int{Active: 1, Standby: 1}, Homes: map[string]int{sealedName: 2},
			Records:  map[string]int{KeyPublished: 4, KeyActivated: 2, KeyRetired: 1, KeyRemoved: 2},
			Versions: 2, Sign: 2, Verify: 2, Ages: map[string]int{"file": 2},
		},
	},
	"another key-encryption key": {
		prepare: func(ctx context.Context, w *errandWorld) error {
			_, err := AuditKey(ctx, w.store, w.file, w.clock.now)
			return errors.Join(err, w.begin(ctx, w.sealed))
		},
		do: func(ctx context.Context, w *errandWorld) error {
			_, err := Rewrap(ctx, w.store, w.file, w.kek, w.clock.now)
			return errors.Join(err, w.lead(ctx, w.inVault))
		},
		want: outcome{
			States: map[State]int{Active: 1, Standby: 1}, Homes: map[string]int{sealedName: 2},
			Records: map[string]int{KeyPublished: 2, KeyActivated: 1, AuditKeyCreated: 1, KeyResealed: 3},
			Ages:    map[string]int{"Vault 1": 3},
		},
	},
	"a newer version of the key-encryption key": {
		prepare: func(ctx context.Context, w *errandWorld) error {
			_, err := AuditKey(ctx, w.store, w.kek, w.clock.now)
			return errors.Join(err, w.begin(ctx, w.inVault))
		},
		rotateKEK: true,
		do: func(ctx context.Context, w *errandWorld) error {
			_, err := Renew(ctx, w.store, w.kek, w.clock.now)
			return errors.Join(err, w.lead(ctx, w.inVault))
		},
		want: outcome{
			States: map[State]int{Active: 1, Standby: 1}, Homes: map[string]int{sealedName: 2},
			Records: map[string]int{KeyPublished: 2, KeyActivated: 1, AuditKeyCreated: 1, KeyResealed: 3},
			Ages:    map[string]int{"Vault 2": 3},
		},
	},
}

// begin makes a ring, waits until its standby could sign, and mints a token.
func (w *errandWorld) begin(ctx context.Context, home Home) error {
	m, err := w.manager(home)
	if err != nil {
		return err
	}
	if err := errors.Join(m.Start(ctx), w.pass(2*DefaultMaxAge), m.Tick(ctx)); err != nil {
		return err
	}
	active, err := m.Active()
	if err != nil {
		return err
	}
	raw, err := active.Sign(ctx, []byte(`{"a":1}`), "at+jwt")
	if err != nil {
		return err
	}
	return os.WriteFile(w.errand.file("minted"), []byte(raw), 0o600)
}

// lead starts a manager, does something about the key that signed before, and
// then what is due.
func (w *errandWorld) lead(ctx context.Context, home Home, do ...func(m *Manager, former string) error) error {
	m, err := w.manager(home)
	if err != nil {
		return err
	}
	raw, err := w.former()
	if err := errors.Join(err, m.Start(ctx), w.oldTokenLives(ctx, m)); err != nil {
		return err
	}
	for _, f := range do {
		if err := f(m, keyOf(raw)); err != nil {
			return err
		}
	}
	return w.turns(ctx, m)
}

// turns does what is due, ten minutes at a time, for two hours: the notice of a
// standby, and the last token of a key that retired, are over then.
func (w *errandWorld) turns(ctx context.Context, m *Manager) error {
	for range 12 {
		if err := errors.Join(w.pass(10*time.Minute), m.Tick(ctx), w.oldTokenLives(ctx, m)); err != nil {
			return err
		}
	}
	return nil
}
