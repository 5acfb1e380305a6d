package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
)

// newCheckWorld is a world that proxies ask, with a worker for each of n
// tenants and a token of each.
func newCheckWorld(t *testing.T, n int, opts ...brokertest.Option) (w *world, tokens map[string]string) {
	t.Helper()
	w = newWorld(t, append(opts, brokertest.Configure(func(d *broker.Document) {
		d.Check = broker.Checks{Listen: "127.0.0.1:0", Audiences: orders}
	}))...)
	tokens = make(map[string]string)
	for i := range n {
		tenant := fmt.Sprintf("t%02d", i)
		w.Tenants(tenant)
		w.Worker("worker-"+tenant, orders, read+" orders:write", tenant)
		tokens[tenant] = w.mustToken(w.form("worker-"+tenant, tenant)).AccessToken
	}
	return w, tokens
}

func (w *world) checkURL() string {
	return "http://" + w.Internal().CheckAddress().String() + "/v1/check"
}

// check asks as a proxy does.
func (w *world) check(ctx context.Context, token string, query url.Values) (status int, tenant string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.checkURL()+"?"+query.Encode(), nil)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	return resp.StatusCode, resp.Header.Get("X-Tenant"), resp.Body.Close()
}

// Every token passes for its own tenant and for no other, however many ask at once.
func TestCrossTenant_ThroughACheck(t *testing.T) {
	w, tokens := newCheckWorld(t, 8)
	var all sync.WaitGroup
	for own, token := range tokens {
		for other := range tokens {
			all.Go(func() {
				status, tenant, err := w.check(t.Context(), token, url.Values{"audience": {orders}, "tenant": {other}, "scope": {read}})
				if err != nil || (status == 200) != (own == other) || (status != 200 && (status != 403 || tenant != "")) || (status == 200 && tenant != own) {
					t.Errorf("%s reaches for %s: %d %q %v", own, other, status, tenant, err)
				}
			})
		}
	}
	all.Wait()
}

// A check knows of a revocation at once, and of what ends a tenant or an account.
func TestACheckSeesARevocationAtOnce(t *testing.T) {
	w, tokens := newCheckWorld(t, 2)
	ask := func(tenant string) int {
		status, _, err := w.check(t.Context(), tokens[tenant], url.Values{"audience": {orders}, "tenant": {tenant}})
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	if ask("t00") != 200 || ask("t01") != 200 {
		t.Fatal("a good token is refused")
	}
	form := url.Values{"token": {tokens["t00"]}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion": {w.assertion("worker-t00", nil)}}
	if a := w.post("/oauth2/revoke", form); a.status != 200 {
		t.Fatalf("revoke: %d", a.status)
	}
	if a, b := ask("t00"), ask("t01"); a != 401 || b != 200 {
		t.Errorf("revoked: %d, another's: %d", a, b)
	}
}

// What a client can do to the bytes of the proxy's question.
func TestBadInput_OfACheck(t *testing.T) {
	w, tokens := newCheckWorld(t, 1)
	address := w.Internal().CheckAddress().String()
	good := "Authorization: Bearer " + tokens["t00"] + "\r\n"
	for name, tc := range map[string]struct {
		request string
		want    string
	}{
		"good":                              {"GET /v1/check?audience=orders&tenant=t00 HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "200"},
		"an absolute target":                {"GET http://evil.example/v1/check?audience=orders&tenant=t00 HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "200"},
		"HTTP/1.0":                          {"GET /v1/check?audience=orders&tenant=t00 HTTP/1.0\r\n" + good + "\r\n", "200"},
		"HTTP/1.0, another tenant":          {"GET /v1/check?audience=orders&tenant=t01 HTTP/1.0\r\n" + good + "\r\n", "403"},
		"HEAD":                              {"HEAD /v1/check?audience=orders&tenant=t00 HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "200"},
		"HEAD, another tenant":              {"HEAD /v1/check?audience=orders&tenant=t01 HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "403"},
		"a parameter twice":                 {"GET /v1/check?audience=orders&tenant=t01&tenant=t00 HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "400"},
		"a list of tokens":                  {"GET /v1/check?audience=orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + tokens["t00"] + ", Bearer x\r\n\r\n", "401"},
		"two X-Forwarded-Uri":               {"GET /v1/check?audience=orders&tenant_at=/t/{tenant} HTTP/1.1\r\nHost: x\r\nX-Forwarded-Uri: /t/t00\r\nX-Forwarded-Uri: /t/t00\r\n" + good + "\r\n", "403"},
		"a URI with a fragment":             {"GET /v1/check?audience=orders&tenant_at=/t/{tenant}&uri=/t/t00#/../t01 HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "403"},
		"a body after a good question":      {"GET /v1/check?audience=orders&tenant=t00 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n" + good + "\r\nGET", "400"},
		"no host":                           {"GET /v1/check?audience=orders HTTP/1.1\r\n" + good + "\r\n", "400"},
		"a space in the query":              {"GET /v1/check?audience=orders&tenant=t00 x HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "400"},
		"a fragment that cuts the tenant":   {"GET /v1/check?audience=orders&tenant=t00#&x=y HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "400"},
		"a raw byte beyond ASCII":           {"GET /v1/check?audience=orders&tenant=t00\xff HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "400"},
		"two Authorization headers":         {"GET /v1/check?audience=orders HTTP/1.1\r\nHost: x\r\n" + good + good + "\r\n", "401"},
		"the header folded":                 {"GET /v1/check?audience=orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n " + tokens["t00"] + "\r\n\r\n", "200"},
		"a header with a space in its name": {"GET /v1/check?audience=orders HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer x\r\n\r\n", "400"},
		"a body":                            {"POST /v1/check?audience=orders HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n" + good + "\r\nhello", "400"},
		"a body that doesn't come":          {"POST /v1/check?audience=orders HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n" + good + "\r\n", "400"},
		"two lengths":                       {"POST /v1/check?audience=orders HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n" + good + "\r\n", "400"},
		"a chunked body":                    {"POST /v1/check?audience=orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + good + "\r\n0\r\n\r\n", "400"},
		"large headers":                     {"GET /v1/check?audience=orders HTTP/1.1\r\nHost: x\r\n" + good + "X: " + strings.Repeat("a", 20_000) + "\r\n\r\n", "431"},
		"CONNECT":                           {"CONNECT /v1/check?audience=orders HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "200"},
		"no path":                           {"OPTIONS * HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "404"},
	} {
		status, err := statusOf(t.Context(), address, tc.request)
		if err != nil || !strings.Contains(tc.want, status) {
			t.Errorf("%s: %s %v, want %s", name, status, err, tc.want)
		}
	}
}

// statusOf sends bytes and returns the status of the first answer.
func statusOf(ctx context.Context, address, request string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(sendTimeout)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return "", err
	}
	head := make([]byte, len("HTTP/1.1 200"))
	for read := 0; read < len(head); {
		n, err := conn.Read(head[read:])
		if read += n; err != nil && read < len(head) {
			return "", errors.Join(errors.New("no whole answer"), err)
		}
	}
	return string(head[len("HTTP/1.1 "):]), nil
}
