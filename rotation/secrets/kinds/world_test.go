package kinds_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// kindWorld is a manager of one secret on a real Vault behind a proxy that
// fails on demand, with a clock that the test turns.
type kindWorld struct {
	*testing.T
	proxy    *devvault.Proxy
	client   *vault.Client
	root     *vault.Client // past the proxy: somebody else
	registry *registry.Registry
	m        *secrets.Manager
	hook     *rotator
	name     string
	log      *testlog.Buffer

	mu     sync.Mutex
	offset time.Duration
	points map[string]func() // what happens there, once
}

func newWorld(t *testing.T) *kindWorld {
	t.Helper()
	if parts.once.Do(startParts); parts.err != nil {
		t.Fatal(parts.err)
	}
	w := &kindWorld{
		T: t, proxy: devvault.ProxyForTest(t, parts.vault), name: fmt.Sprintf("secret-%d", parts.count.Add(1)),
		points: map[string]func(){}, log: new(testlog.Buffer), hook: newRotator(t),
	}
	w.client = crashClient(t, w.proxy.URL(), parts.vault.RootToken())
	w.root = crashClient(t, parts.vault.URL(), parts.vault.RootToken())
	st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "db"), Writer: "test"})
	w.must(err)
	t.Cleanup(func() { _ = st.Close() })
	w.registry = registry.New(st, credential.MustIssuerURL("https://broker.example"), w.now)
	authenticate := func(ctx context.Context, id credential.AccountID, secret credential.Secret) error {
		return takes(ctx, w.registry, id, secret)
	}
	token := func(context.Context, registry.Rotated, credential.AccountID, credential.Audience, credential.Tenant) (credential.Secret, error) {
		return credential.NewSecret([]byte(hookToken)), nil
	}
	layout := kinds.DefaultLayout()
	w.m, err = secrets.New(secrets.Config{
		Store: st, Registry: w.registry, Broker: "one", Now: w.now, Interval: 10 * time.Millisecond, InspectEvery: time.Minute,
		Kinds: []secrets.Kind{
			kinds.NewKV(storesOf(w.client), layout), kinds.NewSecret(w.registry, authenticate, storesOf(w.client), layout, w.now),
			kinds.NewWebhook(loopbackOnly, token),
		},
		Crash: w.reach, Logger: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	w.must(err)
	_, err = w.registry.CreateTenant(t.Context(), admin, registry.Tenant{ID: credential.MustTenant("acme")})
	w.must(err)
	for _, id := range []string{"app", "worker"} {
		_, err := w.registry.CreateAccount(t.Context(), admin, registry.Account{ID: credential.MustAccountID(id), Home: credential.System, Owner: "a team"})
		w.must(err)
	}
	return w
}

func (w *kindWorld) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *kindWorld) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.offset)
}

func (w *kindWorld) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset += d
}

// at has something happen at a point, once.
func (w *kindWorld) at(point string, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.points[point] = do
}

func (w *kindWorld) reach(point string) {
	w.mu.Lock()
	do := w.points[point]
	delete(w.points, point)
	w.mu.Unlock()
	if do != nil {
		do()
	}
}

// path is where consumers read.
func (w *kindWorld) path() string { return "tenants/acme/" + w.name }

// declare declares a secret of acme, and runs the manager.
func (w *kindWorld) declare(kind string, spec map[string]any) {
	w.Helper()
	raw, err := json.Marshal(spec)
	w.must(err)
	_, err = w.m.Create(w.Context(), admin, secrets.Secret{
		ID: w.name, Kind: kind, Spec: raw, Tenant: credential.MustTenant("acme"), Owner: credential.MustAccountID("app"),
		Consumers: []credential.AccountID{credential.MustAccountID("app"), credential.MustAccountID("worker")},
		MaxAge:    secrets.Duration(30 * 24 * time.Hour), Overlap: secrets.Duration(secrets.MinOverlap),
	})
	w.must(err)
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.m.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("Run: %v", err)
		}
	})
}

func (w *kindWorld) declareKV(more map[string]any) {
	w.Helper()
	spec := map[string]any{"path": w.path()}
	for k, v := range more {
		spec[k] = v
	}
	w.declare("kv", spec)
}

func (w *kindWorld) ask(force bool) {
	w.Helper()
	w.must(w.m.Rotate(w.Context(), admin, w.name, 0, force))
}

func (w *kindWorld) status() secrets.Status {
	w.Helper()
	st, err := w.m.Get(w.Context(), admin, w.name)
	w.must(err)
	return st
}

// until waits; meanwhile the clock runs fast, so that no pause is long.
func (w *kindWorld) until(what string, ok func(secrets.Status) bool) secrets.Status {
	w.Helper()
	for end := time.Now().Add(time.Minute); ; {
		st := w.status()
		if ok(st) {
			return st
		}
		if time.Now().After(end) {
			w.Fatalf("not %s: %+v, attempt %+v, last %+v", what, st.Waiting, st.Attempt, st.Last)
		}
		w.pass(200 * time.Millisecond)
		time.Sleep(2 * time.Millisecond)
	}
}

func gaveUp(st secrets.Status) bool {
	return st.Attempt == nil && st.Last != nil && st.Last.Failed != ""
}

func (w *kindWorld) ack(version uint64) {
	w.Helper()
	for _, id := range []string{"app", "worker"} {
		_, err := w.m.Ack(w.Context(), secrets.Consumer{Account: credential.MustAccountID(id), Tenant: credential.MustTenant("acme")}, w.name, version)
		w.must(err)
	}
}

// rotate takes a rotation from its beginning to its end.
func (w *kindWorld) rotate(version uint64) {
	w.Helper()
	w.ask(false)
	w.until("drain", draining(version))
	w.ack(version)
	w.until("rotated", rotated(version))
}

// read is what consumers read.
func (w *kindWorld) read() vault.KVValue {
	w.Helper()
	v, err := w.root.KV("secret").Get(w.Context(), w.path())
	w.must(err)
	return v
}

func (w *kindWorld) write(data map[string]any) int {
	w.Helper()
	n, err := w.root.KV("secret").Put(w.Context(), w.path(), data, vault.NoCAS)
	w.must(err)
	return n
}

// breaks has calls of a path fail, and counts those that write.
func (w *kindWorld) breaks(path string, f devvault.Fault) {
	match := devvault.At(path)
	f.Match = func(method, p string) bool { return method != http.MethodGet && match(method, p) }
	w.proxy.Break(f)
}

func (w *kindWorld) writes(path string) int {
	match := devvault.At(path)
	return w.proxy.Calls(func(method, p string) bool { return method != http.MethodGet && match(method, p) })
}
