package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/internal/child"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
)

// binaryFolder holds the real broker until the last test has ended.
var binaryFolder string

func TestMain(m *testing.M) {
	if config := os.Getenv(fastVariable); config != "" {
		os.Exit(serveFast(config)) // this process is a broker, see rotation_broker_test.go
	}
	if orders := os.Getenv(fleetVariable); orders != "" {
		os.Exit(serveFleet(orders)) // this process is verifiers, see fleet_test.go
	}
	code := m.Run()
	if binaryFolder != "" {
		if err := os.RemoveAll(binaryFolder); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// binary builds the real broker once for all tests of this run, brokerctl what
// administers it.
var (
	binary    = sync.OnceValues(func() (string, error) { return build("broker") })
	brokerctl = sync.OnceValues(func() (string, error) { return build("brokerctl") })
)

// makeBinaryFolder makes the folder of programs when the first is built.
var makeBinaryFolder = sync.OnceValue(func() (err error) {
	binaryFolder, err = os.MkdirTemp("", "tenantbroker-e2e-")
	return err
})

func build(name string) (string, error) {
	if err := makeBinaryFolder(); err != nil {
		return "", err
	}
	path := filepath.Join(binaryFolder, name)
	out, err := exec.Command("go", "build", "-o", path, "../cmd/"+name).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// process is the real broker in a process of its own, on a data folder.
type process struct {
	t      *testing.T
	folder string
	url    string
	prefix []string         // the command that runs the broker, if not itself
	serve  func() *exec.Cmd // another program than the real broker, unless nil
	cmd    *exec.Cmd
	errors *testlog.Buffer
	key    *ecdsa.PrivateKey // of the worker
	kid    string
}

// newProcess makes a data folder under folder with broker init. It does not
// serve it yet.
func newProcess(t *testing.T, folder string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	port, err := child.TakePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.Release)
	p := &process{t: t, folder: folder, url: "http://" + port.Address(), errors: new(testlog.Buffer)}
	out, err := exec.Command(path, "init", "--data", folder, "--issuer", p.url, "--ops-listen", "").CombinedOutput()
	if err != nil {
		t.Fatalf("broker init: %v\n%s", err, out)
	}
	return p
}

// start serves the folder and returns how long it took until it answered.
func (p *process) start() time.Duration {
	p.t.Helper()
	begun := time.Now()
	p.cmd = p.command()
	p.cmd.Stderr = p.errors
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for time.Since(begun) < time.Minute {
		resp, err := http.Get(p.url + "/.well-known/jwks.json")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return time.Since(begun)
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	p.t.Fatalf("the broker does not answer:\n%s", p.errors.String())
	return 0
}

func (p *process) command() *exec.Cmd {
	p.t.Helper()
	if p.serve != nil {
		return p.serve()
	}
	path, err := binary()
	if err != nil {
		p.t.Fatal(err)
	}
	command := append(slices.Clone(p.prefix), path, "serve", "--config", filepath.Join(p.folder, "broker.yaml"))
	return exec.Command(command[0], command[1:]...)
}

// kill is kill -9: nothing gets to clean up.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	_ = p.cmd.Wait() // always an error: killed
}

// terminate is SIGTERM; the broker must end well.
func (p *process) terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("the broker ended with %v:\n%s", err, p.errors.String())
	}
}

// declare makes tenants, a service and a worker through the operators' calls.
func (p *process) declare(ctx context.Context, tenants ...string) {
	p.t.Helper()
	key, err := client.LoadKey(filepath.Join(p.folder, "operator.pem"), credential.MustAccountID("admin"))
	p.must(err)
	operator, err := client.New(client.Config{Issuer: credential.MustIssuerURL(p.url), Auth: key})
	p.must(err)
	defer func() { _ = operator.Close() }()
	admin := operator.Admin(credential.System)
	grant := wire.GrantCreate{
		Account: credential.MustAccountID(mailer), Audience: credential.MustAudience(orders),
		Scopes: credential.MustScopes(read), Reason: "test",
	}
	for _, id := range tenants {
		tenant := credential.MustTenant(id)
		_, err := admin.Tenants().Create(ctx, wire.TenantCreate{ID: tenant, Reason: "test"})
		p.must(err)
		grant.Tenants = append(grant.Tenants, tenant)
	}
	for _, id := range []string{orders, mailer} {
		_, err := admin.Accounts().Create(ctx, wire.AccountCreate{
			ID: credential.MustAccountID(id), Home: credential.System, Owner: "test", Reason: "test",
		})
		p.must(err)
	}
	_, err = admin.Audiences().Create(ctx, wire.AudienceCreate{
		Name: credential.MustAudience(orders), Owner: credential.MustAccountID(orders), Reason: "test",
	})
	p.must(err)
	_, err = admin.Grants().Create(ctx, grant)
	p.must(err)
	p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.must(err)
	public, err := jwks.NewKey("worker-1", credential.ES256, &p.key.PublicKey)
	p.must(err)
	p.kid = public.ID()
	_, err = admin.Accounts().AddCredential(ctx, credential.MustAccountID(mailer), 0,
		wire.CredentialCreate{Kind: wire.KindPublicKey, JWK: public.JWK(), Reason: "test"})
	p.must(err)
}

// form is a good token request with a fresh assertion.
func (p *process) form(tenant string) url.Values {
	now := time.Now()
	return url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion": {sign(p.t, p.key, p.kid, map[string]any{
			"iss": mailer, "sub": mailer, "aud": p.url, "jti": credential.NewID(),
			"iat": now.Unix(), "exp": now.Add(4 * time.Minute).Unix(),
		})},
		"audience": {orders},
		"tenant":   {tenant},
	}
}

func (p *process) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%v\n%s", err, bytes.TrimSpace([]byte(p.errors.String())))
	}
}
