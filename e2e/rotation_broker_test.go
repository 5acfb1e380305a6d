package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/child"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// Times of a broker whose keys rotate in seconds. Verifiers may keep a key set
// for one second. The spread is what they may be late: a caching proxy counts in
// whole seconds and so keeps a set for up to two, and the machine is busy.
const (
	fastMaxAge = time.Second
	fastSpread = 2 * time.Second
	fastNotice = fastMaxAge + fastSpread
	fastRotate = 7 * time.Second
	fastLife   = 6 * time.Second // of every token for a service
	fastLeeway = 2 * time.Second
)

// fastVariable names the configuration for which this test program, started
// again, is a broker: the real one can't be told to rotate in seconds.
// fastTimesVariable has its times.
const (
	fastVariable      = "TENANTBROKER_E2E_FAST"
	fastTimesVariable = "TENANTBROKER_E2E_FAST_TIMES"
)

// fastTimes are what tests want of their own: how long verifiers may keep a key
// set, and when a key is due to rotate by itself.
type fastTimes struct{ MaxAge, Rotation time.Duration }

// byItself is a broker that rotates while a test looks on.
var byItself = fastTimes{fastMaxAge, fastRotate}

func (f fastTimes) policy(p keys.Policy) keys.Policy {
	p.InsecureFast = true
	p.MaxAge, p.Spread, p.Rotation = f.MaxAge, fastSpread, f.Rotation
	p.MaxTokenLife, p.Leeway = fastLife, fastLeeway
	return p
}

// serveFast is the broker's main function with fast keys.
func serveFast(path string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var times fastTimes
	config, err := broker.Load(path, broker.NoEnvironment)
	if err == nil {
		err = json.Unmarshal([]byte(os.Getenv(fastTimesVariable)), &times)
	}
	if err == nil {
		logger, level := broker.NewLogger(config, os.Stderr)
		var b *broker.Broker
		b, err = broker.Open(ctx, config, broker.Deps{Now: time.Now, Logger: logger, Level: level, Version: "fast", Policy: times.policy})
		if err == nil {
			err = b.Run(ctx)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fastBroker is a broker in a process of its own whose keys rotate in seconds.
type fastBroker struct {
	*process
	admin *client.Admin
}

func newFastBroker(t *testing.T, times fastTimes, change func(*broker.Document)) *fastBroker {
	t.Helper()
	port, err := child.TakePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.Release)
	folder, err := os.MkdirTemp("", "fast") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	p := &process{t: t, folder: filepath.Join(folder, "data"), url: "http://" + port.Address(), errors: new(testlog.Buffer)}
	d := broker.Default()
	d.Issuer, d.Listen, d.Ops.Listen = p.url, port.Address(), ""
	d.Log.Level, d.Limits.AdminPerSecond, d.Limits.AdminBurst = "warn", 1000, 1000
	if change != nil {
		change(&d)
	}
	made, err := broker.Init(t.Context(), broker.InitOptions{
		Folder: p.folder, Document: d, Operator: "admin", Now: time.Now, Policy: times.policy,
	})
	p.must(err)
	said, err := json.Marshal(times)
	p.must(err)
	p.serve = func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), fastVariable+"="+made.Config, fastTimesVariable+"="+string(said))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	b := &fastBroker{process: p}
	key, err := client.LoadKey(made.OperatorKey, credential.MustAccountID("admin"))
	p.must(err)
	operator, err := client.New(client.Config{Issuer: credential.MustIssuerURL(p.url), Auth: key})
	p.must(err)
	t.Cleanup(func() { _ = operator.Close() })
	b.admin = operator.Admin(credential.System)
	return b
}

// reconfigure changes the configuration for the next start.
func (b *fastBroker) reconfigure(change func(*broker.Document)) {
	b.t.Helper()
	path := filepath.Join(b.folder, "broker.yaml")
	config, err := broker.Load(path, broker.NoEnvironment)
	b.must(err)
	d := config.Document()
	change(&d)
	b.must(os.WriteFile(path, broker.Render(d), 0o600))
}

// ring is the keys that there are.
func (b *fastBroker) ring(ctx context.Context) []wire.Key {
	b.t.Helper()
	for {
		var ring []wire.Key
		var failed error
		for k, err := range b.admin.Keys().List(ctx) {
			failed = err
			ring = append(ring, k)
		}
		if failed == nil {
			return ring
		}
		if !b.later(failed) {
			b.must(failed)
		}
	}
}

// active is the key that signs.
func (b *fastBroker) active(ctx context.Context) wire.Key {
	b.t.Helper()
	for _, k := range b.ring(ctx) {
		if k.State == wire.KeyActive {
			return k
		}
	}
	b.t.Fatal("no active key")
	return wire.Key{}
}

// rotate has the next key sign, by an operator or by waiting for the schedule,
// and returns it.
func (b *fastBroker) rotate(ctx context.Context, from wire.Key, byOperator bool) wire.Key {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var err error
		if byOperator {
			_, err = b.admin.Keys().Rotate(ctx, false, "test")
		}
		// A token of the operator's dies with the key that signed it, which here
		// is before its time: then the client gets another one.
		if err != nil && !errors.Is(err, wire.ErrTooEarly) && !b.later(err) {
			b.t.Fatalf("rotate: %v\n%s", err, b.errors.String())
		}
		if now := b.active(ctx); now.ID != from.ID {
			return now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("no rotation: %v\n%s", ctx.Err(), b.errors.String())
		}
	}
}

// later reports whether an error says to try again: the operator has to sign in
// anew, or Vault, where keys are, was away a moment ago.
func (*fastBroker) later(err error) bool {
	said, ok := errors.AsType[*client.Error](err)
	return ok && (said.Status == http.StatusUnauthorized || said.Status == http.StatusServiceUnavailable)
}

// token asks for one that lives fastLife, until the broker gives it: it may be
// down, or on its way there.
func (b *fastBroker) token(ctx context.Context, c *http.Client, tenant string) (string, error) {
	for {
		form := b.form(tenant)
		form.Set("expires_in", fmt.Sprint(int(fastLife.Seconds())))
		a, err := postForm(ctx, c, b.url+"/oauth2/token", form)
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case err == nil && a.status == http.StatusOK:
			return a.AccessToken, nil
		case err == nil && a.status != http.StatusServiceUnavailable:
			return "", fmt.Errorf("token request: %d %s", a.status, a.Error)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
