package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
)

// outage is how long a fault lasts at least: long against every pause between
// two calls to a Vault that is down.
const outage = 2 * time.Second

// gateBound is for what is promised within two seconds, of Vault's return or of a
// revocation's commit, or within one, of a store's opening, where much else runs:
// whether it keeps them is for the soak tests to say, and nothing that is well
// takes as long as this.
const gateBound = 10 * time.Second

// Whatever is wrong with Vault: a broker whose keys it only seals goes on; one
// whose tokens it signs says 503 and is back soon after it; neither calls it more
// than it must, nor makes a key that nobody asked for.
func TestVault_FaultsUnderRunningBrokers(t *testing.T) {
	t.Parallel() // it waits, most of the time
	vaultFaultsInTurn(t, 1, gateBound)
}

// vaultFaultsInTurn has every fault come so many times, and holds the broker that
// signs with Vault to being back so long after it at most.
func vaultFaultsInTurn(t *testing.T, rounds int, most time.Duration) {
	v := newTestVault(t)
	sealed, transit := newVaultBroker(t, v, "sealed"), newVaultBroker(t, v, "vault-transit")
	var slowest time.Duration
	for round := range rounds {
		for _, fault := range vaultFaults() {
			t.Run(fault.name, func(t *testing.T) {
				took := underFault(t, v, fault, round == 0, sealed, transit)
				if slowest = max(slowest, took); took > most {
					t.Errorf("vault-transit was back %s after Vault, at most %s", took, most)
				}
			})
		}
	}
	t.Logf("vault-transit was back %s after Vault at the latest", slowest.Round(time.Millisecond))
}

// vaultBroker is a broker that uses Vault through a proxy of its own.
type vaultBroker struct {
	*world
	home  string
	proxy *devvault.Proxy
	calls *http.Client
	login string // brokerctl's file of contexts
}

func newVaultBroker(t *testing.T, v *testVault, home string, opts ...brokertest.Option) *vaultBroker {
	t.Helper()
	b := &vaultBroker{home: home, proxy: devvault.ProxyForTest(t, v.Server), calls: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(b.calls.CloseIdleConnections)
	b.world = newWorld(t, append([]brokertest.Option{
		brokertest.Configure(v.configure(home, b.proxy.URL())),
		brokertest.Configure(func(d *broker.Document) { d.Vault.Timeout = time.Second }),
	}, opts...)...)
	b.login = filepath.Join(t.TempDir(), "contexts.yaml")
	account, key := b.Operator()
	if out, code := b.brokerctl(t, "login", "--issuer", b.URL(), "--account", account, "--key", key); code != 0 {
		t.Fatalf("brokerctl login: %d\n%s", code, out)
	}
	return b
}

// underFault has Vault fail while both brokers are under load, and returns how
// long after its end the one that signs with Vault gave a token again. brokerctl
// doctor takes long to give up a broker that gives no token.
func underFault(t *testing.T, v *testVault, fault vaultFault, doctor bool, sealed, transit *vaultBroker) time.Duration {
	t.Helper()
	ctx := t.Context()
	sealed.awaitToken(t)
	transit.awaitToken(t)
	keysBefore := [][]string{sealed.ring(), transit.ring()}
	versions := []int{v.versions(ctx, vaultKEK), v.versions(ctx, transitKey)}

	loads := []*faultLoad{startFaultLoad(t, sealed), startFaultLoad(t, transit)}
	calls := []int{sealed.proxy.Calls(nil), transit.proxy.Calls(nil)}
	logins := []float64{sealed.metric(t, loginsMetric), transit.metric(t, loginsMetric)}
	begun := time.Now()
	end, err := fault.begin(ctx, v, []*devvault.Proxy{sealed.proxy, transit.proxy})
	if err != nil {
		t.Fatal(err)
	}
	end = once(end)
	t.Cleanup(func() { _ = end(context.WithoutCancel(ctx)) }) // for the faults after this one, should this test end here
	if !fault.silent {
		loads[1].awaitRefusal(t)
		transit.awaitFailing(t, "signing_key")
		sealed.awaitFailing(t, "kek")
		if sealed.metric(t, "tenantbroker_kek_usable") != 0 || transit.metric(t, "tenantbroker_signing_key_overdue") != 1 {
			t.Error("the metrics say that all is well")
		}
		sealed.doctorSays(t, "key-encryption key")
		if doctor {
			transit.doctorSays(t, "gives no token now")
		}
	}
	select { // the fault goes on for a while: what is counted is what happens meanwhile
	case <-time.After(outage - time.Since(begun)):
	case <-ctx.Done():
	}
	down := time.Since(begun)
	calls[0], calls[1] = sealed.proxy.Calls(nil)-calls[0], transit.proxy.Calls(nil)-calls[1]
	if err := end(ctx); err != nil {
		t.Fatal(err)
	}
	ended := time.Now()
	raw := transit.awaitToken(t)
	recovered := time.Since(ended)
	for _, l := range loads {
		l.stop()
	}
	transit.verified(t, raw)
	sealed.awaitReady(t)
	transit.awaitReady(t)

	t.Logf("down %s: sealed %d tokens, %d calls; vault-transit %d tokens, %d refusals, %d calls, back after %s", down.Round(time.Millisecond),
		loads[0].tokens.Load(), calls[0], loads[1].tokens.Load(), loads[1].refusals.Load(), calls[1], recovered.Round(time.Millisecond))
	if n := loads[0].refusals.Load(); n != 0 || loads[0].tokens.Load() == 0 {
		t.Errorf("the broker with sealed keys refused %d times, and gave %d tokens", n, loads[0].tokens.Load())
	}
	for i, home := range []string{"sealed", "vault-transit"} {
		// Each second a broker tries 3.4 signatures and one value of its key-encryption
		// key; what fails may be followed by a look at Vault's health and at the token.
		if most := 20 + int(15*down.Seconds()); calls[i] > most && !fault.silent {
			t.Errorf("%s: %d calls to a Vault that is down for %s, want at most %d", home, calls[i], down, most)
		}
	}
	for i, b := range []*vaultBroker{sealed, transit} {
		if fault.relogin {
			await(t, b.home+": the metrics tell that it had to log in again", func() bool { return b.metric(t, loginsMetric) > logins[i] })
		}
		if now := b.ring(); !slices.Equal(now, keysBefore[i]) {
			t.Errorf("%s: the keys were %v and are %v", b.home, keysBefore[i], now)
		}
	}
	for i, key := range []string{vaultKEK, transitKey} {
		if now := v.versions(ctx, key); now != versions[i] {
			t.Errorf("Vault's key %s had %d versions and has %d", key, versions[i], now)
		}
	}
	return recovered
}

// loginsMetric tells of what a broker gets over by itself.
const loginsMetric = `tenantbroker_vault_calls_total{operation="login",outcome="ok"}`

// faultLoad asks for tokens all the time.
type faultLoad struct {
	b                *vaultBroker
	stop             func()
	tokens, refusals atomic.Int64
}

func startFaultLoad(t *testing.T, b *vaultBroker) *faultLoad {
	l := &faultLoad{b: b}
	ended := make(chan struct{})
	var askers sync.WaitGroup
	for range 2 {
		askers.Go(func() {
			tick := time.NewTicker(25 * time.Millisecond)
			defer tick.Stop()
			for {
				if l.b.ask(t) != "" {
					l.tokens.Add(1)
				} else {
					l.refusals.Add(1)
				}
				select {
				case <-ended:
					return
				case <-tick.C:
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() { close(ended); askers.Wait() })
	t.Cleanup(l.stop)
	return l
}

// once has a function run once, and every call return what that one did.
func once(f func(context.Context) error) func(context.Context) error {
	var (
		run sync.Once
		err error
	)
	return func(ctx context.Context) error {
		run.Do(func() { err = f(ctx) })
		return err
	}
}

func (l *faultLoad) awaitRefusal(t *testing.T) {
	t.Helper()
	await(t, "a refusal", func() bool { return l.refusals.Load() > 0 })
}

// ask asks for a token once: the token, or "" for a 503 as it has to be.
func (b *vaultBroker) ask(t *testing.T) string {
	a, err := postForm(context.WithoutCancel(t.Context()), b.calls, b.URL()+"/oauth2/token", b.form(mailer, acme))
	switch {
	case err != nil:
		t.Errorf("%s: %v", b.home, err)
	case a.status == http.StatusOK:
		return a.AccessToken
	case a.status != http.StatusServiceUnavailable || a.Error != "temporarily_unavailable":
		t.Errorf("%s: %d %s", b.home, a.status, a.Error)
	default:
		if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 {
			t.Errorf("%s: Retry-After: %q", b.home, a.header.Get("Retry-After"))
		}
	}
	return ""
}

// awaitToken asks until there is a token.
func (b *vaultBroker) awaitToken(t *testing.T) (raw string) {
	t.Helper()
	await(t, b.home+": a token", func() bool {
		raw = b.ask(t)
		return raw != ""
	})
	return raw
}

// verified holds the token to what a service would.
func (b *vaultBroker) verified(t *testing.T, raw string) {
	t.Helper()
	if _, err := b.Verifier(orders).Verify(t.Context(), raw); err != nil {
		t.Errorf("%s: %v", b.home, err)
	}
}

// ring is the ids and states of the keys.
func (b *vaultBroker) ring() (ring []string) {
	for _, k := range b.Internal().Keys().List() {
		ring = append(ring, fmt.Sprint(k.ID, " ", k.State))
	}
	slices.Sort(ring)
	return ring
}

// readyz is what the broker says of itself: the checks that fail.
func (b *vaultBroker) readyz(t *testing.T) (failing map[string]string) {
	t.Helper()
	status, body := b.ops(t, "/readyz")
	var said struct {
		Status string
		Checks []struct {
			Name  string
			OK    bool
			Error string
		}
	}
	if err := json.Unmarshal(body, &said); err != nil {
		t.Fatalf("readyz: %d %s", status, body)
	}
	failing = make(map[string]string)
	for _, c := range said.Checks {
		if !c.OK {
			failing[c.Name] = c.Error
		}
	}
	want := "ready"
	switch {
	case status != http.StatusOK:
		want = "not ready"
	case len(failing) > 0:
		want = "degraded"
	}
	if said.Status != want {
		t.Errorf("readyz: %d %s", status, body)
	}
	return failing
}

func (b *vaultBroker) ops(t *testing.T, path string) (int, []byte) {
	t.Helper()
	resp, err := b.calls.Get(b.OpsURL() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// brokerctl runs the real program, and returns what it says and its exit code.
func (b *vaultBroker) brokerctl(t *testing.T, args ...string) (string, int) {
	t.Helper()
	program, err := brokerctl()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, append([]string{"--config", b.login}, args...)...).CombinedOutput()
	if failed := (*exec.ExitError)(nil); err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return string(out), max(0, exitCode(err))
}

func exitCode(err error) int {
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return failed.ExitCode()
	}
	return 0
}

// doctorSays holds brokerctl doctor to a finding, and its exit code.
func (b *vaultBroker) doctorSays(t *testing.T, want string) {
	t.Helper()
	if out, code := b.brokerctl(t, "doctor"); code != 8 || !strings.Contains(out, want) {
		t.Errorf("%s: doctor exits with %d, want 8, and says:\n%s", b.home, code, out)
	}
}

// metric is a metric without labels, or with exactly these.
func (b *vaultBroker) metric(t *testing.T, name string) float64 {
	t.Helper()
	_, body := b.ops(t, "/metrics")
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return n
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// await looks until it is so. A minute means never: what has failed for half of
// one is tried again after as long.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !so() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s: never came", what)
		}
	}
}

// awaitFailing waits until /readyz says that a check fails.
func (b *vaultBroker) awaitFailing(t *testing.T, check string) {
	t.Helper()
	await(t, b.home+": /readyz says "+check, func() bool { return b.readyz(t)[check] != "" })
}

func (b *vaultBroker) awaitReady(t *testing.T) {
	t.Helper()
	await(t, b.home+": ready", func() bool { return len(b.readyz(t)) == 0 })
}
