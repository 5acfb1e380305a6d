package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// fleetVariable names the orders for which this test program, started again,
// is a number of verifiers.
const fleetVariable = "TENANTBROKER_E2E_FLEET"

const (
	fleetProcesses = 4
	fleetEach      = 50 // verifiers in one process
)

// fleetOrders are what a process of verifiers works with.
type fleetOrders struct {
	Issuer, KeyFile, Account string
	Tokens                   map[string]string // tenant → a token
}

// serveFleet is a process of verifiers, each with a follower and a connection of
// its own. It says "ready" and what one of them takes of memory; then for each
// tenant that it reads, when each of them refused the tenant's token.
func serveFleet(path string) int {
	if err := runFleet(path, os.Stdin, os.Stdout); err != nil {
		fmt.Println("failed", err)
		return 1
	}
	return 0
}

func runFleet(path string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var o fleetOrders
	if err := json.Unmarshal(data, &o); err != nil {
		return err
	}
	before := heap()
	fleet := make([]*verifier.Verifier, fleetEach)
	for i := range fleet {
		follower, v, err := newFleetVerifier(ctx, o)
		if err != nil {
			return err
		}
		fleet[i] = v
		running.Go(func() { _ = follower.Run(ctx) })
	}
	for _, raw := range o.Tokens {
		for _, v := range fleet {
			if _, err := v.Verify(ctx, raw); err != nil {
				return fmt.Errorf("before any revocation: %w", err)
			}
		}
	}
	_, _ = fmt.Fprintln(out, "ready", (heap()-before)/fleetEach) // if nobody reads, nobody asks
	var mu sync.Mutex                                            // one line at a time
	for lines := bufio.NewScanner(in); lines.Scan(); {
		tenant := lines.Text()
		for _, v := range fleet {
			running.Go(func() {
				at, err := refusedAt(ctx, v, o.Tokens[tenant])
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					_, _ = fmt.Fprintln(out, "failed", err)
					return
				}
				_, _ = fmt.Fprintln(out, "refused", tenant, at.UnixNano())
			})
		}
	}
	return nil
}

func newFleetVerifier(ctx context.Context, o fleetOrders) (*verifier.Follower, *verifier.Verifier, error) {
	account, err := credential.ParseAccountID(o.Account)
	if err != nil {
		return nil, nil, err
	}
	key, err := client.LoadKey(o.KeyFile, account)
	if err != nil {
		return nil, nil, err
	}
	issuer, err := credential.ParseIssuerURL(o.Issuer)
	if err != nil {
		return nil, nil, err
	}
	tokens, err := client.New(client.Config{Issuer: issuer, Auth: key})
	if err != nil {
		return nil, nil, err
	}
	follower, err := verifier.NewFollower(ctx, verifier.FollowerConfig{Issuer: o.Issuer, Token: tokens.Revocations(credential.System)})
	if err != nil {
		return nil, nil, err
	}
	v, err := verifier.New(ctx, verifier.Config{Issuer: o.Issuer, Audience: orders, Revocations: follower})
	return follower, v, err
}

// refusedAt asks until the token is refused as revoked.
func refusedAt(ctx context.Context, v *verifier.Verifier, raw string) (time.Time, error) {
	for {
		_, err := v.Verify(ctx, raw)
		switch {
		case errors.Is(err, verifier.ErrRevoked):
			return time.Now(), nil
		case err != nil:
			return time.Time{}, err
		case ctx.Err() != nil:
			return time.Time{}, ctx.Err()
		}
		time.Sleep(2 * time.Millisecond) // how exactly the moment is known
	}
}

// heap is what is in use and reachable.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// fleetProcess is one process of verifiers.
type fleetProcess struct {
	in    io.WriteCloser
	lines *bufio.Scanner
	cmd   *exec.Cmd
}

func startFleet(t *testing.T, orders string) *fleetProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), fleetVariable+"="+orders)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &fleetProcess{in, bufio.NewScanner(out), cmd}
}

// read returns the fields of a line that begins with word.
func (f *fleetProcess) read(t *testing.T, word string) []string {
	t.Helper()
	if !f.lines.Scan() {
		t.Fatalf("a process of verifiers has ended: %v", f.lines.Err())
	}
	fields := strings.Fields(f.lines.Text())
	if len(fields) == 0 || fields[0] != word {
		t.Fatalf("a process of verifiers says %q", f.lines.Text())
	}
	return fields[1:]
}

// Two hundred verifiers in four processes learn of a tenant's suspension: while
// the broker runs, just after it was restarted, and of one that was committed
// just before it was killed.
func TestEveryConnectedVerifierLearnsOfARevocation(t *testing.T) { fleet(t, gateBound) }

// fleet reports the slowest of all, and holds it to most.
func fleet(t *testing.T, most time.Duration) {
	p := newProcess(t, filepath.Join(t.TempDir(), "data"))
	p.start()
	stopped := false
	defer func() {
		if !stopped {
			p.kill()
		}
	}()
	tenants := []string{"running", "restarted", "killed"}
	p.declare(t.Context(), tenants...)
	orderFile, admin := p.fleetOrders(t, tenants)
	processes := make([]*fleetProcess, fleetProcesses)
	for i := range processes {
		processes[i] = startFleet(t, orderFile)
	}
	for _, f := range processes {
		t.Logf("memory of one verifier with its follower, client and connection: %s bytes", f.read(t, "ready")[0])
	}
	// suspend has all watch, and suspends; slowest waits for all to notice.
	suspend := func(tenant string) time.Time {
		for _, f := range processes {
			_, err := fmt.Fprintln(f.in, tenant)
			p.must(err)
		}
		from := time.Now()
		_, err := admin.Tenants().Suspend(t.Context(), credential.MustTenant(tenant), 0, "test")
		p.must(err)
		return from
	}
	slowest := func(tenant string, from time.Time) {
		var latest time.Time
		for _, f := range processes {
			for range fleetEach {
				fields := f.read(t, "refused")
				var nano int64
				if _, err := fmt.Sscan(fields[1], &nano); err != nil || fields[0] != tenant {
					t.Fatalf("%v %v", fields, err)
				}
				if at := time.Unix(0, nano); at.After(latest) {
					latest = at
				}
			}
		}
		took := latest.Sub(from)
		t.Logf("%s: the slowest of %d verifiers after %v", tenant, fleetProcesses*fleetEach, took.Round(time.Millisecond))
		if took > most {
			t.Errorf("%s: %v, at most %v", tenant, took, most)
		}
	}
	slowest("running", suspend("running"))
	p.terminate()
	p.start()
	slowest("restarted", suspend("restarted"))
	suspend("killed")
	p.kill()
	p.start()
	slowest("killed", time.Now())
	for _, f := range processes {
		_ = f.in.Close()
		if err := f.cmd.Wait(); err != nil {
			t.Errorf("a process of verifiers ended with %v", err)
		}
	}
	p.terminate()
	stopped = true
}

// fleetOrders gives the service a key, and has a token for each tenant. It
// returns the file of the orders, and the operators' calls.
func (p *process) fleetOrders(t *testing.T, tenants []string) (string, *client.Admin) {
	t.Helper()
	key, err := client.LoadKey(filepath.Join(p.folder, "operator.pem"), credential.MustAccountID("admin"))
	p.must(err)
	operator, err := client.New(client.Config{Issuer: credential.MustIssuerURL(p.url), Auth: key})
	p.must(err)
	t.Cleanup(func() { _ = operator.Close() })
	admin := operator.Admin(credential.System)
	private, public, err := broker.NewAccountKey()
	p.must(err)
	o := fleetOrders{
		Issuer: p.url, KeyFile: filepath.Join(t.TempDir(), "orders.pem"), Account: orders, Tokens: map[string]string{},
	}
	p.must(os.WriteFile(o.KeyFile, private, 0o600))
	_, err = admin.Accounts().AddCredential(t.Context(), credential.MustAccountID(orders), 0,
		wire.CredentialCreate{Kind: wire.KindPublicKey, JWK: public.JWK(), Reason: "test"})
	p.must(err)
	for _, tenant := range tenants {
		a := postTo(t, p.url, "/oauth2/token", p.form(tenant))
		if a.status != 200 {
			t.Fatalf("token for %s: %d %s", tenant, a.status, a.Error)
		}
		o.Tokens[tenant] = a.AccessToken
	}
	data, err := json.Marshal(o)
	p.must(err)
	file := filepath.Join(t.TempDir(), "orders.json")
	p.must(os.WriteFile(file, data, 0o600))
	return file, admin
}
