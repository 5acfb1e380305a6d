package kinds_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// crashing is one kind in the table of crashes. Between the calls the test
// rotates, kills and restarts.
type crashing interface {
	kind(*vault.Client, *registry.Registry) secrets.Kind
	// furnish makes what is out there, and returns the secret to declare.
	furnish(w *crashWorld) secrets.Secret
	// given is what consumers are given now, with its version.
	given(w *crashWorld) (value any, version uint64)
	// valid reports whether what they were given works.
	valid(w *crashWorld, value any) bool
	// settled fails the test where something is left over, or was done twice.
	// version is the one that consumers have, after so many rotations.
	settled(w *crashWorld, version, rotations int)
}

// crashTable has every kind.
var crashTable = map[string]crashing{
	"client-secret":        &crashingSecret{},
	"database-static-pair": &crashingPair{},
	"kv":                   &crashingKV{},
	"webhook":              &crashingHook{},
}

// crashWorld is a secret with one version, and a store that processes take turns at.
type crashWorld struct {
	*testing.T
	crashing
	name   string
	path   string // of the store
	proxy  *devvault.Proxy
	client *vault.Client
}

// What a process that is to be killed is told, on its standard input: the token
// is in no list of processes.
type crashOrder struct {
	Kind, Store, Vault, Token, Secret, Point string
	Version                                  uint64 // of the rotation
	Unproven                                 bool   // the proof of the new value fails
	Unheard                                  bool   // publishing it has no answer, and is given up
}

const crashEnv = "TENANTBROKER_TEST_CRASH"

// For every kind and every moment around each of its side effects: a process
// that rotates is killed there. What consumers have works until the new value is
// with them; the next process ends the rotation with that one value, and nothing
// is left over.
func TestKilledAtEveryPoint(t *testing.T) {
	if parts.once.Do(startParts); parts.err != nil {
		t.Fatal(parts.err)
	}
	for name, c := range crashTable {
		points := secrets.Points(c.kind(nil, nil))
		if len(points) == 0 {
			t.Errorf("%s has no side effects", name)
		}
		for _, point := range points {
			if !givingUp(point) {
				t.Run(point, func(t *testing.T) { killedAt(t, c, name, point) })
			}
			if strings.Contains(point, "/clean/") && !fencing(point) {
				t.Run("given up/"+point, func(t *testing.T) { killedGivingUp(t, c, name, point) })
			}
			if strings.Contains(point, "/clean/") && slices.Contains(c.kind(nil, nil).Effects(secrets.Clean), "fence") {
				t.Run("unheard/"+point, func(t *testing.T) { killedFencing(t, c, name, point) })
			}
		}
	}
}

// A first rotation, too, ends with one good value wherever it is killed. What it
// finds at its place is the value of before, which works until the new one is
// with consumers.
func TestKilledAtEveryPointOfTheFirstRotation(t *testing.T) {
	if parts.once.Do(startParts); parts.err != nil {
		t.Fatal(parts.err)
	}
	for name, c := range crashTable {
		t.Run(name, func(t *testing.T) { killedAtFirst(t, c, name, 1) })
	}
	t.Run("kv that was there", func(t *testing.T) { killedAtFirst(t, &foundKV{}, "kv", 2) })
}

// givingUp reports whether only a rotation that was given up comes there.
func givingUp(point string) bool { return strings.Contains(point, "/withdraw/") || fencing(point) }

// fencing reports whether only one comes there whose new value may still reach
// consumers.
func fencing(point string) bool {
	return strings.Contains(point, "/fence/") || strings.Contains(point, "/erase/")
}

func killedAtFirst(t *testing.T, c crashing, kind string, version uint64) {
	for _, point := range firstPoints(t, c, version) {
		t.Run(point, func(t *testing.T) {
			w := declared(t, c)
			var old any
			if version > 1 {
				old, _ = c.given(w)
			}
			order := w.order(kind, point)
			order.Version = version
			w.kill(order)
			if old != nil {
				if now, _ := c.given(w); !c.valid(w, now) {
					t.Error("what consumers are given doesn't work")
				}
				if !strings.Contains(point, "/retire/") && !strings.Contains(point, "/clean/") && !c.valid(w, old) {
					t.Error("what was there ended before consumers had the new value")
				}
			}
			w.process(func(m *secrets.Manager, _ *registry.Registry) { w.rotatedWell(m, version) })
			if now, n := c.given(w); n != version || !c.valid(w, now) {
				t.Errorf("after: version %d", n)
			}
			if old != nil && c.valid(w, old) {
				t.Error("what was there is still valid")
			}
			c.settled(w, int(version), 1)
		})
	}
}

// firstPoints are those that a first rotation passes: all that a kind has, but
// for what there is to end of a value of before.
func firstPoints(t *testing.T, c crashing, version uint64) (passed []string) {
	w := declared(t, c)
	w.passing(func(point string) { passed = append(passed, point) }, func(m *secrets.Manager, _ *registry.Registry) { w.rotatedWell(m, version) })
	for _, point := range secrets.Points(c.kind(nil, nil)) {
		if !slices.Contains(passed, point) && !givingUp(point) && !strings.Contains(point, "/retire/") {
			t.Errorf("a first rotation doesn't pass %s", point)
		}
	}
	return passed
}

// rotatedWell rotates to a version, and nothing is wrong after it.
func (w *crashWorld) rotatedWell(m *secrets.Manager, version uint64) {
	w.Helper()
	w.must(rotateTo(w.Context(), m, w.name, version))
	st, err := m.Get(w.Context(), admin, w.name)
	w.must(err)
	if st.Last.Failed != "" || st.Drift != "" || st.Problem != "" {
		w.Errorf("failed %q, drift %q, problem %q", st.Last.Failed, st.Drift, st.Problem)
	}
}

// declared is a world with a secret whose first rotation is asked for.
func declared(t *testing.T, c crashing) *crashWorld {
	w := &crashWorld{T: t, crashing: c, name: fmt.Sprintf("crash-%d", parts.count.Add(1)), path: filepath.Join(t.TempDir(), "db")}
	w.proxy = devvault.ProxyForTest(t, parts.vault)
	w.client = crashClient(t, w.proxy.URL(), parts.vault.RootToken())
	secret := c.furnish(w)
	w.process(func(m *secrets.Manager, r *registry.Registry) {
		_, err := r.CreateAccount(t.Context(), admin, registry.Account{ID: credential.MustAccountID("app"), Home: credential.System, Owner: "a team"})
		w.must(err)
		_, err = m.Create(t.Context(), admin, secret)
		w.must(err)
		w.must(m.Rotate(t.Context(), admin, w.name, 0, false))
	})
	return w
}

// furnished is a world with one version, and another asked for.
func furnished(t *testing.T, c crashing) (w *crashWorld, old any) {
	w = declared(t, c)
	w.process(func(m *secrets.Manager, _ *registry.Registry) { w.must(rotateTo(t.Context(), m, w.name, 1)) })
	var version uint64
	old, version = c.given(w)
	if version != 1 || !c.valid(w, old) {
		t.Fatalf("before: version %d", version)
	}
	w.process(func(m *secrets.Manager, _ *registry.Registry) {
		w.must(m.Rotate(t.Context(), admin, w.name, 0, false))
	})
	return w, old
}

func (w *crashWorld) order(kind, point string) crashOrder {
	return crashOrder{Kind: kind, Store: w.path, Vault: w.proxy.URL(), Token: parts.vault.RootToken(), Secret: w.name, Point: point, Version: 2}
}

// A rotation whose proof fails is given up; the process that cleans up is killed.
func killedGivingUp(t *testing.T, c crashing, kind, point string) {
	w, old := furnished(t, c)
	order := w.order(kind, point)
	order.Unproven = true
	w.kill(order)
	wants := func(when string) {
		if now, version := c.given(w); version != 1 || !c.valid(w, now) || !c.valid(w, old) {
			t.Errorf("%s the old value is not what it was: version %d", when, version)
		}
	}
	wants("killed:")
	w.process(func(m *secrets.Manager, _ *registry.Registry) {
		st, err := m.Get(t.Context(), admin, w.name)
		w.must(err)
		if st.Attempt == nil || st.Attempt.Step != secrets.Clean {
			t.Errorf("killed elsewhere than in the clean-up: %+v", st.Attempt)
		}
		w.must(rotateUntil(t.Context(), m, w.name, func(st secrets.Status) bool { return st.Last != nil && st.Last.Failed != "" }))
	})
	wants("after:")
	c.settled(w, 1, 2)
}

// A rotation whose publishing has no answer is given up; the process that cleans
// up is killed. Then Vault carries the write out after all, and refuses it.
func killedFencing(t *testing.T, c crashing, kind, point string) {
	w, old, before := declared(t, c), any(nil), 0
	if !strings.Contains(point, "/erase/") { // which is where there was nothing before
		w, old = furnished(t, c)
		before = 1
	}
	order := w.order(kind, point)
	order.Version, order.Unheard = uint64(before+1), true
	w.kill(order)
	w.process(func(m *secrets.Manager, _ *registry.Registry) {
		w.must(rotateUntil(t.Context(), m, w.name, func(st secrets.Status) bool { return st.Last != nil && st.Last.Failed != "" }))
		st, err := m.Get(t.Context(), admin, w.name)
		w.must(err)
		if st.Drift != "" || st.Problem != "" {
			t.Errorf("drift %q, problem %q", st.Drift, st.Problem)
		}
	})
	late := map[string]any{"value": "late", "tenantbroker_version": "2"}
	if _, err := w.client.KV("secret").Put(t.Context(), "shared/"+w.name, late, before); !errors.Is(err, vault.ErrConflict) {
		t.Errorf("a late write reaches consumers: %v", err)
	}
	if before == 0 {
		if v, err := w.client.KV("secret").Get(t.Context(), "shared/"+w.name); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("consumers, who had nothing, are given %d fields: %v", len(v.Data), err)
		}
	} else if now, version := c.given(w); version != 1 || !c.valid(w, now) || !c.valid(w, old) {
		t.Errorf("the old value is not what it was: version %d", version)
	}
	w.process(func(m *secrets.Manager, _ *registry.Registry) {
		w.must(m.Rotate(t.Context(), admin, w.name, 0, false))
		w.rotatedWell(m, 2)
	})
	if now, version := c.given(w); version != 2 || !c.valid(w, now) {
		t.Errorf("after: version %d", version)
	}
	if before > 0 && c.valid(w, old) {
		t.Error("the old value is still valid")
	}
}

func killedAt(t *testing.T, c crashing, kind, point string) {
	w, old := furnished(t, c)
	w.kill(w.order(kind, point))

	now, version := c.given(w)
	if !c.valid(w, now) {
		t.Errorf("what consumers are given, version %d, doesn't work", version)
	}
	if !strings.Contains(point, "/retire/") && !strings.Contains(point, "/clean/") && !c.valid(w, old) {
		t.Error("the old value ended before consumers had the new one")
	}
	w.process(func(m *secrets.Manager, _ *registry.Registry) {
		w.rotatedWell(m, 2)
	})
	now, version = c.given(w)
	if version != 2 || !c.valid(w, now) {
		t.Errorf("after: version %d", version)
	}
	if c.valid(w, old) {
		t.Error("the old value is still valid")
	}
	c.settled(w, 2, 2)
}

func (w *crashWorld) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// process is what one process does with the store.
func (w *crashWorld) process(do func(*secrets.Manager, *registry.Registry)) {
	w.Helper()
	w.passing(func(string) {}, do)
}

// passing is process, told of each point that it passes.
func (w *crashWorld) passing(point func(string), do func(*secrets.Manager, *registry.Registry)) {
	w.Helper()
	w.must(withManager(w.Context(), w.path, func(r *registry.Registry) secrets.Kind { return w.kind(w.client, r) }, point, do))
}

func withManager(ctx context.Context, path string, kind func(*registry.Registry) secrets.Kind, passed func(string), do func(*secrets.Manager, *registry.Registry)) (err error) {
	st, err := bolt.Open(ctx, bolt.Options{Path: path, Writer: "test"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	reg := registry.New(st, credential.MustIssuerURL("https://broker.example"), time.Now)
	m, err := secrets.New(secrets.Config{
		Store: st, Registry: reg, Broker: "one", Now: time.Now, Interval: 10 * time.Millisecond, Kinds: []secrets.Kind{kind(reg)},
		Crash: passed,
	})
	if err != nil {
		return err
	}
	do(m, reg)
	return nil
}

// rotateTo runs the manager until a version is rotated to its end, and answers
// for the consumer.
func rotateTo(ctx context.Context, m *secrets.Manager, id string, version uint64) error {
	return rotateUntil(ctx, m, id, rotated(version))
}

// rotateUntil is rotateTo with another end. What has failed to be proven, an
// operator gives up.
func rotateUntil(ctx context.Context, m *secrets.Manager, id string, ok func(secrets.Status) bool) (err error) {
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- m.Run(running) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	for {
		st, err := m.Get(ctx, admin, id)
		if err != nil {
			return err
		}
		if ok(st) {
			return nil
		}
		if a := st.Attempt; a != nil && a.Abort == "" && (a.Step == secrets.Prove && a.Error != "" || a.Step == secrets.Promote && a.Error == unheardOf) {
			if err := m.Abort(ctx, admin, id, 0); err != nil {
				return err
			}
		}
		if a := st.Attempt; a != nil && a.Step == secrets.Drain {
			app := secrets.Consumer{Account: credential.MustAccountID("app"), Tenant: credential.System}
			if _, err := m.Ack(ctx, app, id, a.New.Version); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kill starts this program again with an order, and waits until it is killed.
func (w *crashWorld) kill(order crashOrder) {
	w.Helper()
	program, err := os.Executable()
	w.must(err)
	input, err := json.Marshal(order)
	w.must(err)
	child := exec.CommandContext(w.Context(), program)
	child.Env = append(os.Environ(), crashEnv+"=1")
	child.Stdin = bytes.NewReader(input)
	output, err := child.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.String() != "signal: killed" {
		w.Fatalf("the process was not killed at %s: %v\n%s", order.Point, err, output)
	}
}

// crashChild is the process that is to be killed.
func crashChild() error {
	var order crashOrder
	if err := json.NewDecoder(os.Stdin).Decode(&order); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	client, err := vault.New(vault.Config{Address: order.Vault, Login: vault.Token{Secret: credential.NewSecret([]byte(order.Token))}})
	if err != nil {
		return err
	}
	if err := client.Login(ctx); err != nil {
		return err
	}
	var failed error
	err = withManager(ctx, order.Store, func(r *registry.Registry) secrets.Kind {
		kind := crashTable[order.Kind].kind(client, r)
		if order.Unproven {
			return unproven{kind}
		}
		if order.Unheard {
			return unheard{kind}
		}
		return kind
	}, func(point string) {
		if point == order.Point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it is delivered
		}
	}, func(m *secrets.Manager, _ *registry.Registry) {
		failed = rotateTo(ctx, m, order.Secret, order.Version)
	})
	return errors.Join(err, failed)
}

// unproven is a kind whose new values never work.
type unproven struct{ secrets.Kind }

func (k unproven) Do(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	if w.Step == secrets.Prove {
		return nil, errors.New("it does not work")
	}
	return k.Kind.Do(ctx, w)
}

// unheard is a kind whose publishing is on its way, for all that anyone knows.
type unheard struct{ secrets.Kind }

const unheardOf = "no answer"

func (k unheard) Do(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	if w.Step == secrets.Promote {
		return nil, errors.New(unheardOf)
	}
	return k.Kind.Do(ctx, w)
}

func crashClient(t *testing.T, address, token string) *vault.Client {
	t.Helper()
	client, err := vault.New(vault.Config{Address: address, Login: vault.Token{Secret: credential.NewSecret([]byte(token))}})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client
}

// at counts the calls of a path through the proxy.
func (w *crashWorld) at(path string) int { return w.proxy.Calls(devvault.At(path)) }
