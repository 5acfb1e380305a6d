package languages_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
)

const (
	audience  = "orders"
	scopes    = "orders:read orders:write"
	perTenant = 3 // orders of each
	password  = "0123456789abcdef-not-secret"
)

// postgres is one server for all tests, started by the first that asks. Each has a
// database of its own there.
var postgres struct {
	once   sync.Once
	server *devpostgres.Server
	err    error
	made   int // databases
}

func TestMain(m *testing.M) {
	code := m.Run()
	if postgres.server != nil {
		postgres.server.Stop()
	}
	os.Exit(code)
}

// world is a broker, a database under pgguard's policies with orders of tenants,
// and a token of each.
type world struct {
	*testing.T
	broker   *brokertest.Broker
	postgres *devpostgres.Server
	database string
	tenants  []string
	tokens   map[string]string
}

func newWorld(t *testing.T, tenants int, opts ...brokertest.Option) *world {
	t.Helper()
	postgres.once.Do(func() { // and outlives the test that is first
		postgres.server, postgres.err = devpostgres.Start(context.Background(), devpostgres.Options{})
	})
	must(t, postgres.err)
	postgres.made++
	w := &world{
		T: t, broker: brokertest.Start(t, opts...), tokens: make(map[string]string),
		postgres: postgres.server, database: fmt.Sprintf("shop_%d", postgres.made),
	}
	w.broker.Service(audience)
	for i := range tenants {
		tenant := fmt.Sprintf("tenant-%d", i)
		w.tenants = append(w.tenants, tenant)
		w.broker.Tenants(tenant)
		w.broker.Worker("worker-of-"+tenant, audience, scopes, tenant)
		w.tokens[tenant] = w.broker.TokenFor("worker-of-"+tenant, audience, tenant)
	}
	table, err := pgguard.ParseTable("shop.orders", "tenant")
	must(t, err)
	policies, err := pgguard.Policies{Tables: []pgguard.Table{table}, Role: "shop_app"}.SQL()
	must(t, err)
	must(t, w.postgres.SQL(t.Context(), "postgres", "CREATE DATABASE "+w.database))
	w.sql("CREATE SCHEMA shop; CREATE TABLE shop.orders (tenant text NOT NULL, id bigint PRIMARY KEY, note text NOT NULL)", policies,
		"ALTER ROLE shop_app PASSWORD '"+password+"'")
	for i, tenant := range w.tenants {
		w.sql(fmt.Sprintf("INSERT INTO shop.orders SELECT '%s', n, 'of %[1]s' FROM generate_series(%d, %d) n", tenant, i*perTenant, (i+1)*perTenant-1))
	}
	return w
}

// service runs a language's service, and returns its URL and its log.
func (w *world) service(language, dsn string) (url string, log *testlog.Buffer) {
	w.Helper()
	cmd := command(language, example(w.T, language), "service",
		"ISSUER="+w.broker.URL(), "AUDIENCE="+audience, "DATABASE_URL="+dsn)
	return listening(w.T, cmd)
}

func (w *world) dsn() string { return w.postgres.DSN("shop_app", password, w.database) }

// sql runs statements as the superuser.
func (w *world) sql(statements ...string) {
	w.Helper()
	must(w.T, w.postgres.SQL(w.Context(), w.database, statements...))
}

// changed counts orders whose note somebody else wrote.
func (w *world) changed() (n int) {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.postgres.DSN(devpostgres.Superuser, w.postgres.SuperPassword(), w.database))
	must(w.T, err)
	defer func() { _ = c.Close(context.WithoutCancel(w.Context())) }()
	must(w.T, c.QueryRow(w.Context(), "SELECT count(*) FROM shop.orders WHERE note NOT IN ('of ' || tenant, 'by ' || tenant)").Scan(&n))
	return n
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   string
}

// code is the problem's.
func (a answer) code() string {
	var p struct{ Code string }
	_ = json.Unmarshal([]byte(a.body), &p) // "" for none
	return p.Code
}

// ask sends one request. A header named twice is sent twice.
func ask(ctx context.Context, method, url, body string, headers ...string) (a answer, err error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return a, err
	}
	raw, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return answer{resp.StatusCode, resp.Header, string(raw)}, err
}

// listening starts a server that says on its first line where it listens.
func listening(t *testing.T, cmd *exec.Cmd) (url string, log *testlog.Buffer) {
	t.Helper()
	log = new(testlog.Buffer)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	must(t, err)
	start(t, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	address, found := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !found {
		t.Fatalf("%v: %q\n%s", err, line, log)
	}
	return "http://" + address, log
}
