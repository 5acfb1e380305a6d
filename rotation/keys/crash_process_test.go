package keys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// reaper counts side effects and kills this process after one of them.
type reaper struct {
	armed    bool
	dieAfter int // 0: before the first; -1: never

	mu       sync.Mutex
	happened []string
}

func (r *reaper) around(what string, do func() error) error {
	r.reap()
	err := do()
	if err == nil && r.armed {
		r.mu.Lock()
		r.happened = append(r.happened, what)
		r.mu.Unlock()
		r.reap()
	}
	return err
}

func (r *reaper) reap() {
	if r.armed && len(r.effects()) == r.dieAfter {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until it comes
	}
}

func (r *reaper) effects() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.happened
}

// mortal is Vault and a store, with a reaper at each of their side effects.
type mortal struct {
	TransitEngine
	TransitSealer
	store.Store
	*reaper
}

func (m *mortal) Create(ctx context.Context, name, typ string) error {
	return m.around("create", func() error { return m.TransitEngine.Create(ctx, name, typ) })
}

func (m *mortal) Rotate(ctx context.Context, name string) (n int, err error) {
	err = m.around("rotate", func() (err error) { n, err = m.TransitEngine.Rotate(ctx, name); return err })
	return n, err
}

func (m *mortal) SetMinimums(ctx context.Context, name string, decryption, encryption int) error {
	return m.around("minimums", func() error { return m.TransitEngine.SetMinimums(ctx, name, decryption, encryption) })
}

func (m *mortal) Encrypt(ctx context.Context, name string, plaintext, aad []byte) (c string, err error) {
	err = m.around("encrypt", func() (err error) { c, err = m.TransitSealer.Encrypt(ctx, name, plaintext, aad); return err })
	return c, err
}

func (m *mortal) Update(ctx context.Context, fn func(store.Tx) error) error {
	return m.around("commit", func() error { return m.Store.Update(ctx, fn) })
}

// errand is something that one process begins and another may have to end.
type errand struct {
	Name, Dir            string
	Vault, Token, Prefix string
	DieAfter             int
}

// errandWorld is what a process has to do an errand with.
type errandWorld struct {
	errand  *errand
	clock   *clock
	store   store.Store
	file    KEK
	kek     Aging // a Transit key
	sealed  Home  // with the key file
	inVault Home  // sealed with the Transit key
	either  Home  // sealed with one of them
	transit *Transit
}

// file is one of the errand's.
func (e *errand) file(name string) string { return filepath.Join(e.Dir, name) }

// run does the errand, from wherever an earlier process left it.
func (e *errand) run(ctx context.Context, r *reaper) error {
	return e.with(ctx, r, errands[e.Name].do)
}

// with is a process that opens the store and Vault, and does something.
func (e *errand) with(ctx context.Context, r *reaper, do func(context.Context, *errandWorld) error) (err error) {
	client, err := vault.New(vault.Config{Address: e.Vault, Login: vault.Token{Secret: credential.NewSecret([]byte(e.Token))}})
	if err != nil {
		return err
	}
	if err := client.Login(ctx); err != nil {
		return err
	}
	st, err := bolt.Open(ctx, bolt.Options{Path: e.file("db"), Writer: "one"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	engine := client.Transit("transit")
	doomed := &mortal{engine, engine, st, r}
	w := &errandWorld{errand: e, clock: newClock(), store: doomed}
	if w.file, err = LoadKeyFile(e.file("kek")); err != nil {
		return err
	}
	kek, err := NewTransitKEK(doomed, "transit", e.Prefix+"-kek")
	if err != nil {
		return err
	}
	if w.kek, _ = kek.(Aging); w.kek == nil {
		return errors.New("a key of Vault has no versions")
	}
	w.sealed, w.inVault, w.either = Sealed(w.file), Sealed(w.kek), Sealed(KEKs(w.file, w.kek))
	w.transit, err = NewTransit(ctx, TransitConfig{Engine: func(string) TransitEngine { return doomed }, Prefix: e.Prefix})
	if err != nil {
		return err
	}
	defer w.transit.Close()
	if at, err := os.ReadFile(e.file("clock")); err == nil {
		d, err := time.ParseDuration(string(at))
		if err != nil {
			return err
		}
		w.clock.add(d)
	}
	return do(ctx, w)
}

// manager returns one with a home for new keys, and those of before.
func (w *errandWorld) manager(home Home) (*Manager, error) {
	c := Config{Store: w.store, Home: home, Now: w.clock.now}
	for _, other := range []Home{w.sealed, w.transit} {
		if other.Name() != home.Name() {
			c.Others = append(c.Others, other)
		}
	}
	return New(c)
}

// former is the token of before, "" if none was minted.
func (w *errandWorld) former() (string, error) {
	raw, err := os.ReadFile(w.errand.file("minted"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(raw), err
}

// oldTokenLives returns an error unless the token of before verifies: until its
// key is revoked, or was retired for as long as a token may live. Once the key is
// revoked it must not.
func (w *errandWorld) oldTokenLives(ctx context.Context, m *Manager) error {
	raw, err := w.former()
	if err != nil || raw == "" { // nothing was minted before
		return err
	}
	records, err := readLog(ctx, w.store)
	if err != nil {
		return err
	}
	var over time.Time
	revoked := false
	for _, r := range records {
		switch {
		case r.KeyID != keyOf(raw):
		case r.Type == KeyRevoked:
			revoked = true
		case r.Type == KeyRetired:
			over = r.Time.Add(credential.MaxAccessLifetime)
		}
	}
	lives := w.verify(ctx, m, raw)
	switch {
	case revoked && lives == nil:
		return errors.New("the token of a revoked key verifies")
	case !revoked && lives != nil && (over.IsZero() || w.clock.now().Before(over)):
		return fmt.Errorf("the token of before is void: %w", lives)
	}
	return nil
}

// verify is what a verifier with the manager's keys makes of a token.
func (w *errandWorld) verify(ctx context.Context, m *Manager, raw string) error {
	j, err := credential.ParseJWS(raw)
	if err != nil {
		return err
	}
	key, err := m.Key(ctx, j.KeyID())
	if err != nil {
		return err
	}
	_, err = j.Verify(key.Algorithm(), key.Public())
	return err
}

// keyOf is the id of the key that signed.
func keyOf(raw string) string {
	j, err := credential.ParseJWS(raw)
	if err != nil {
		return err.Error()
	}
	return j.KeyID()
}

// pass turns the clock, of this process and of the next.
func (w *errandWorld) pass(d time.Duration) error {
	w.clock.add(d)
	return os.WriteFile(w.errand.file("clock"), []byte(w.clock.now().Sub(newClock().now()).String()), 0o600)
}

// until turns the clock to a time after the beginning, if it is not there yet.
func (w *errandWorld) until(d time.Duration) error {
	return w.pass(max(0, d-w.clock.now().Sub(newClock().now())))
}

// sealedWith says with what bytes were sealed.
func (w *errandWorld) sealedWith(sealed []byte) string {
	version, err := w.kek.Age(sealed)
	switch {
	case err == nil:
		return fmt.Sprint("Vault ", version)
	case errors.Is(err, ErrKEK):
		return "file"
	}
	return err.Error()
}
