package secrets_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// world is a manager on a real store, with a kind whose faults a test chooses
// and a clock that it turns.
type world struct {
	*secrets.Manager
	t        *testing.T
	st       store.Store
	registry *registry.Registry
	kind     *faulty
	config   secrets.Config

	mu  sync.Mutex
	now time.Time
}

func newWorld(t *testing.T, change ...func(*secrets.Config)) *world {
	t.Helper()
	w := &world{t: t, now: start, kind: newFaulty()}
	st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "db"), Writer: "test", Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	w.st = st
	w.registry = registry.New(st, credential.MustIssuerURL("https://broker.example"), w.clock)
	w.config = secrets.Config{
		Store: st, Registry: w.registry, Kinds: []secrets.Kind{w.kind}, Broker: "one", Now: w.clock,
		Interval: 10 * time.Millisecond,
	}
	for _, c := range change {
		c(&w.config)
	}
	w.Manager = w.manager(w.config)
	for _, id := range []string{"acme", "globex"} {
		if _, err := w.registry.CreateTenant(t.Context(), admin, registry.Tenant{ID: credential.MustTenant(id)}); err != nil {
			t.Fatal(err)
		}
	}
	w.account("api", "system")
	w.account("worker", "system")
	w.account("acme-app", "acme")
	w.account("globex-app", "globex")
	return w
}

func (w *world) manager(c secrets.Config) *secrets.Manager {
	w.t.Helper()
	m, err := secrets.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) account(id, home string) {
	w.t.Helper()
	_, err := w.registry.CreateAccount(w.t.Context(), admin, registry.Account{
		ID: credential.MustAccountID(id), Home: credential.MustTenant(home), Owner: "a team",
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func as(subject, roles, tenant string) registry.By {
	id := credential.MustAccountID(subject)
	return registry.By{
		Subject: id, ClientID: id, Tenant: credential.MustTenant(tenant), Roles: credential.MustScopes(roles),
		Reason: "a test", RequestID: "req-1", IP: "192.0.2.1",
	}
}

var (
	admin    = as("root", "admin", "system")
	operator = as("ops", "operator", "system")
	viewer   = as("eve", "viewer", "system")
	acmeOps  = as("acme-ops", "security", "acme")
)

// plain is a secret of acme that api and worker consume.
func plain(id string) secrets.Secret {
	return secrets.Secret{
		ID: id, Kind: "faulty", Spec: json.RawMessage(`{"name":"` + id + `"}`), Tenant: credential.MustTenant("acme"),
		Owner:     credential.MustAccountID("api"),
		Consumers: []credential.AccountID{credential.MustAccountID("worker"), credential.MustAccountID("api")},
		Schedule:  secrets.Schedule{Every: secrets.Duration(24 * time.Hour)}, MaxAge: secrets.Duration(48 * time.Hour),
		DrainDeadline: secrets.Duration(time.Hour), Overlap: secrets.Duration(secrets.MinOverlap),
	}
}

func (w *world) create(s secrets.Secret) secrets.Secret {
	w.t.Helper()
	made, err := w.Create(w.t.Context(), admin, s)
	if err != nil {
		w.t.Fatal(err)
	}
	return made
}

// run runs a manager until the test ends or stop is called.
func (w *world) run(m *secrets.Manager) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

func (w *world) status(id string) secrets.Status {
	w.t.Helper()
	st, err := w.Get(w.t.Context(), admin, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

// until waits for the status to be as wanted.
func (w *world) until(id, what string, ok func(secrets.Status) bool) secrets.Status {
	w.t.Helper()
	var st secrets.Status
	w.eventually(id+" is "+what, func() bool { st = w.status(id); return ok(st) })
	return st
}

// eventually waits for something to come true, much longer than it takes.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(40 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) || w.t.Failed() {
			w.t.Fatalf("never: %s", what)
		}
	}
}

func inStep(step secrets.Step) func(secrets.Status) bool {
	return func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Step == step }
}

func rotated(version uint64) func(secrets.Status) bool {
	return func(st secrets.Status) bool {
		return st.Last != nil && st.Last.Version == version && st.Last.Failed == ""
	}
}

func (w *world) consumer(account, tenant string) secrets.Consumer {
	return secrets.Consumer{Account: credential.MustAccountID(account), Tenant: credential.MustTenant(tenant), RequestID: "req-2", JTI: "j"}
}

// ack has both consumers of a plain secret use a version.
func (w *world) ack(id string, version uint64) {
	w.t.Helper()
	for _, c := range []string{"api", "worker"} {
		if _, err := w.Ack(w.t.Context(), w.consumer(c, "acme"), id, version); err != nil {
			w.t.Fatal(err)
		}
	}
}

// rotate rotates a plain secret to its end, which is at a version.
func (w *world) rotate(id string, version uint64) {
	w.t.Helper()
	if err := w.Rotate(w.t.Context(), operator, id, 0, false); err != nil {
		w.t.Fatal(err)
	}
	w.until(id, "in drain", inStep(secrets.Drain))
	w.ack(id, version)
	w.until(id, "rotated", rotated(version))
}

// records lists the types of the audit records about a secret.
func (w *world) records(id string) (types []string) {
	w.t.Helper()
	err := w.st.View(w.t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			if record.Resource == (audit.Resource{Type: "secret", ID: id}) {
				types = append(types, record.Type)
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return types
}

// faulty is a kind in memory that fails as a test wants: the real ones can't be
// asked to.
type faulty struct {
	mu    sync.Mutex
	good  map[string]map[uint64]string // name → version → nonce: values that work
	given map[string]uint64            // name → what consumers read
	fault map[secrets.Step]error       // what Do says, before the effect
	late  map[secrets.Step]error       // what Do says, after the effect
	away  error                        // what everything says
	drift string
	note  string // what Look says of another
	calls map[string]int
	done  map[string]bool // nonce and step: effects that happened
	gate  chan struct{}   // Do waits for it, if there is one
	in    chan secrets.Step
}

func newFaulty() *faulty {
	return &faulty{
		good: map[string]map[uint64]string{}, given: map[string]uint64{}, fault: map[secrets.Step]error{},
		late: map[secrets.Step]error{}, calls: map[string]int{}, done: map[string]bool{},
	}
}

type faultySpec struct {
	Name    string `json:"name"`
	Whole   bool   `json:"whole,omitempty"`
	Account string `json:"account,omitempty"`
}

func (*faulty) Name() string    { return "faulty" }
func (*faulty) Backend() string { return "memory" }
func (*faulty) Steps() []secrets.Step {
	return []secrets.Step{secrets.Stage, secrets.Apply, secrets.Prove, secrets.Promote, secrets.Drain, secrets.Retire, secrets.Clean}
}
func (*faulty) Effects(secrets.Step) []string { return []string{"effect"} }

func (*faulty) Check(raw json.RawMessage, _ secrets.Subject) (secrets.Checked, error) {
	var s faultySpec
	if err := json.Unmarshal(raw, &s); err != nil || s.Name == "" {
		return secrets.Checked{}, registry.Invalid("spec", "needs a name")
	}
	c := secrets.Checked{Spec: raw, Resources: []string{"faulty:" + s.Name}, Whole: s.Whole}
	if s.Account != "" {
		c.Accounts, c.Sensitive = []credential.AccountID{credential.MustAccountID(s.Account)}, true
	}
	return c, nil
}

func (k *faulty) count(what string) (name string, err error) {
	k.calls[what]++
	return "", k.away
}

func nameOf(w *secrets.Work) string {
	var s faultySpec
	_ = json.Unmarshal(w.Secret.Spec, &s)
	return s.Name
}

func (k *faulty) Inspect(_ context.Context, w *secrets.Work) (secrets.Inspection, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.count("inspect"); err != nil {
		return secrets.Inspection{}, err
	}
	if k.good[nameOf(w)] == nil {
		return secrets.Inspection{}, nil
	}
	in := secrets.Inspection{Found: secrets.Handle{"was": "there"}}
	if w.Old.Version != 0 {
		in.Drift = k.drift
	}
	return in, nil
}

func (k *faulty) Prepare(_ context.Context, w *secrets.Work) (secrets.Handle, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, err := k.count("prepare")
	return secrets.Handle{"prepared": string(w.Step)}, err
}

func (k *faulty) Do(_ context.Context, w *secrets.Work) (secrets.Handle, error) {
	if k.gate != nil {
		k.in <- w.Step
		<-k.gate
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.count("do " + string(w.Step)); err != nil {
		return nil, err
	}
	if err := k.fault[w.Step]; err != nil {
		return nil, err
	}
	err := w.Effect("effect", func() error { k.effect(w); return nil })
	if err == nil {
		err = k.late[w.Step]
	}
	if err != nil {
		return nil, err
	}
	return secrets.Handle{string(w.Step): "done"}, nil
}

func (k *faulty) effect(w *secrets.Work) {
	name := nameOf(w)
	k.done[w.Nonce+string(w.Step)] = true
	if k.good[name] == nil {
		k.good[name] = map[uint64]string{}
	}
	switch w.Step {
	case secrets.Apply:
		k.good[name][w.New.Version] = w.Nonce
	case secrets.Promote:
		k.given[name] = w.New.Version
	case secrets.Retire:
		delete(k.good[name], w.Old.Version)
	case secrets.Clean:
		if w.GivenUp {
			delete(k.good[name], w.New.Version)
		}
	}
}

var errElsewhere = errors.New("elsewhere")

func (k *faulty) Look(_ context.Context, w *secrets.Work) (secrets.Finding, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.count("look " + string(w.Step)); err != nil {
		return secrets.Finding{}, err
	}
	if errors.Is(k.late[w.Step], errElsewhere) {
		return secrets.Finding{What: secrets.Elsewhere, Note: cmp.Or(k.note, "another was here")}, nil
	}
	if !k.done[w.Nonce+string(w.Step)] {
		return secrets.Finding{What: secrets.FoundNot}, nil
	}
	return secrets.Finding{What: secrets.FoundDone, Handle: secrets.Handle{"found": string(w.Step)}}, nil
}

// set changes the faults.
func (k *faulty) set(change func(*faulty)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(k)
}

func (k *faulty) called(what string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[what]
}

// state says which versions of a value work and which one consumers read.
func (k *faulty) state(name string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list string
	for v := range uint64(20) {
		if k.good[name][v] != "" {
			list += " " + strconv.FormatUint(v, 10)
		}
	}
	return fmt.Sprintf("good%s, given %d", list, k.given[name])
}
