package secrets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Names in every world.
const (
	acme  = "acme"
	owner = "owner" // of the secrets; runs nothing
	user  = "user"  // a consumer
)

// world is a running broker with a real Vault, and what it logged.
type world struct {
	*brokertest.Broker
	t     *testing.T
	vault *devvault.Server
	log   *testlog.Buffer
}

func newWorld(t *testing.T, change ...func(*broker.Document)) *world {
	t.Helper()
	w := &world{t: t, vault: devvault.ForTest(t, devvault.Options{Dev: true}), log: new(testlog.Buffer)}
	token := filepath.Join(t.TempDir(), "token")
	w.must(os.WriteFile(token, []byte(w.vault.RootToken()), 0o600))
	w.Broker = brokertest.Start(t, brokertest.Configure(func(d *broker.Document) {
		d.Vault.Address, d.Vault.Login, d.Vault.TokenFile = w.vault.URL(), "token_file", token
		for _, c := range change {
			c(d)
		}
	}), brokertest.WithLogger(slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	w.Tenants(acme, "globex")
	w.Account(owner)
	w.Account(user)
	w.Service("rotator")
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) declare(id, kind string, spec map[string]any, change ...func(*secrets.Secret)) error {
	raw, err := json.Marshal(spec)
	w.must(err)
	s := secrets.Secret{
		ID: id, Kind: kind, Spec: raw, Tenant: credential.MustTenant(acme), Owner: credential.MustAccountID(owner),
		Consumers: []credential.AccountID{credential.MustAccountID(user)}, MaxAge: secrets.Duration(24 * time.Hour),
		Overlap: secrets.Duration(secrets.MinOverlap),
	}
	for _, c := range change {
		c(&s)
	}
	_, err = w.Internal().Secrets().Create(w.t.Context(), w.By(), s)
	return err
}

func (w *world) rotate(id string) {
	w.t.Helper()
	w.must(w.Internal().Secrets().Rotate(w.t.Context(), w.By(), id, 0, false))
}

func (w *world) until(id, what string, ok func(secrets.Status) bool) secrets.Status {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		st, err := w.Internal().Secrets().Get(w.t.Context(), w.By(), id)
		w.must(err)
		if ok(st) {
			return st
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s is not %s: %+v", id, what, st)
		}
	}
}

func draining(st secrets.Status) bool {
	return st.Attempt != nil && st.Attempt.Step == secrets.Drain
}

func rotated(version uint64) func(secrets.Status) bool {
	return func(st secrets.Status) bool { return st.Attempt == nil && st.Last != nil && st.Version == version }
}

// records lists the audit records of a type.
func (w *world) records(kind string) (list []audit.Record) {
	w.t.Helper()
	w.must(w.Internal().Store().View(w.t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			if record.Type == kind {
				list = append(list, record)
			}
		}
		return nil
	}))
	return list
}

// published is what the workload reads in Vault.
func (w *world) published(path string) map[string]any {
	w.t.Helper()
	out, err := w.vault.Do(w.t.Context(), http.MethodGet, "secret/data/"+path, nil)
	w.must(err)
	outer, _ := out["data"].(map[string]any)
	data, _ := outer["data"].(map[string]any)
	if data == nil {
		w.t.Fatalf("nothing is at %s", path)
	}
	return data
}

// as gets a token with a client secret, as a workload does.
func (w *world) as(account string, secret any) error {
	text, _ := secret.(string)
	c, err := client.New(client.Config{
		Issuer: w.Issuer(), Auth: client.ClientSecret{Account: credential.MustAccountID(account), Secret: credential.NewSecret([]byte(text))},
	})
	w.must(err)
	defer func() { _ = c.Close() }()
	_, err = c.Token(w.t.Context(), client.TokenRequest{Tenant: credential.MustTenant(acme), Audience: credential.MustAudience("rotator")})
	return err
}

// The broker's own client secret of a workload rotates under it: both get
// tokens during the overlap, one of them after it.
func TestAClientSecretRotatesUnderItsWorkload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Grant(user, "rotator", "rotate", acme)
	byHand := string(func() []byte { s := w.ClientSecret(user); return s.Reveal() }())
	w.must(w.as(user, byHand))
	w.must(w.declare("user-secret", "client-secret", map[string]any{"account": user, "path": "tenants/acme/user"}))
	w.rotate("user-secret")
	w.until("user-secret", "in drain", draining)
	now := w.published("tenants/acme/user")
	w.must(w.as(user, now["client_secret"]))
	w.must(w.as(user, byHand))

	// The workload says so itself, with a token that it got with the new one.
	w.Grant(user, w.Issuer().Leases().String(), "kv:any", acme)
	text, _ := now["client_secret"].(string)
	c, err := client.New(client.Config{
		Issuer: w.Issuer(), Auth: client.ClientSecret{Account: credential.MustAccountID(user), Secret: credential.NewSecret([]byte(text))},
	})
	w.must(err)
	defer func() { _ = c.Close() }()
	acked, err := c.AckSecret(t.Context(), credential.MustTenant(acme), "user-secret", kinds.ParseVersion(fmt.Sprint(now["tenantbroker_version"])))
	w.must(err)
	if acked.Version != 2 {
		t.Errorf("%+v", acked)
	}
	w.until("user-secret", "rotated", rotated(2))
	w.must(w.as(user, now["client_secret"]))
	if err := w.as(user, byHand); !errors.Is(err, client.ErrInvalidClient) {
		t.Errorf("the old one, after it: %v", err)
	}
	w.secretNowhere(text)
}

// secretNowhere fails if a value is where none may be.
func (w *world) secretNowhere(values ...string) {
	w.t.Helper()
	all := w.log.String()
	for _, path := range []string{"/v1/secrets?limit=10", "/v1/audit?limit=500"} {
		r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.URL()+path, nil)
		w.must(err)
		r.Header.Set("Authorization", "Bearer "+w.AdminToken())
		a, err := http.DefaultClient.Do(r)
		w.must(err)
		var b bytes.Buffer
		_, err = b.ReadFrom(a.Body)
		w.must(errors.Join(err, a.Body.Close()))
		if a.StatusCode != http.StatusOK {
			w.t.Fatalf("%s: %d", path, a.StatusCode)
		}
		all += b.String()
	}
	for _, v := range values {
		if v == "" || strings.Contains(all, v) {
			w.t.Error("a secret is in the log, the trail or the API")
		}
	}
}

// hook is a rotator that takes the broker's tokens and no others.
type hook struct {
	w        *world
	verifier *verifier.Verifier
	server   *httptest.Server

	mu     sync.Mutex
	steps  []string
	tokens []string
}

func newHook(w *world) *hook {
	h := &hook{w: w, verifier: w.Verifier("rotator")}
	h.server = httptest.NewServer(h)
	w.t.Cleanup(h.server.Close)
	return h
}

// ServeHTTP implements http.Handler.
func (h *hook) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	raw := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	token, err := h.verifier.Verify(r.Context(), raw)
	if err != nil || token.Tenant().String() != acme || token.ClientID().String() != owner {
		h.w.t.Errorf("a token that is not as it should be: %v", err)
		out.WriteHeader(http.StatusUnauthorized)
		return
	}
	// I5: on record before it left the broker.
	if !slices.ContainsFunc(h.w.records("token.issued"), func(x audit.Record) bool { return x.JTI == token.ID() }) {
		h.w.t.Error("a token arrived that is not on record")
	}
	if left := time.Until(token.Expires()); left > time.Minute+credential.Leeway {
		h.w.t.Errorf("the token lives for %s", left)
	}
	var c kinds.Call
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		h.w.t.Error(err)
	}
	h.mu.Lock()
	h.steps, h.tokens = append(h.steps, string(c.Step)), append(h.tokens, raw)
	h.mu.Unlock()
	_ = json.NewEncoder(out).Encode(kinds.Reply{State: "done"}) // to a test
}

// A webhook is called with the broker's own token, under a grant of the owner's.
func TestAWebhookIsCalledWithTheBrokersOwnToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := newHook(w)
	w.must(w.declare("saas-key", "webhook", map[string]any{"url": h.server.URL + "/rotate", "audience": "rotator"}))
	// No grant, no token: nobody is called, and the denial is on record.
	w.rotate("saas-key")
	st := w.until("saas-key", "failing", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Error != "" })
	if !strings.Contains(st.Attempt.Error, "no token for the webhook") || len(h.steps) != 0 {
		t.Errorf("%q, called for %q", st.Attempt.Error, h.steps)
	}
	denied := false
	for _, r := range w.records("token.denied") {
		denied = denied || r.Decision == audit.Deny && r.ClientID == owner
	}
	if !denied {
		t.Errorf("the denial is not on record")
	}
	w.Grant(owner, "rotator", "rotate", acme)
	w.until("saas-key", "in drain", draining)
	_, err := w.Internal().Secrets().Ack(t.Context(), secrets.Consumer{Account: credential.MustAccountID(user), Tenant: credential.MustTenant(acme)}, "saas-key", 1)
	w.must(err)
	w.until("saas-key", "rotated", rotated(1))
	if want := []string{"stage", "apply", "prove", "promote", "retire", "clean"}; !slices.Equal(h.steps, want) {
		t.Errorf("called for %q", h.steps)
	}
	w.secretNowhere(h.tokens...)
}

// The owner has become an operator since: its tokens are not for webhooks.
func TestAWebhookGetsNoOperatorsToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := newHook(w)
	w.Grant(owner, "rotator", "rotate", acme)
	w.must(w.declare("saas-key", "webhook", map[string]any{"url": h.server.URL, "audience": "rotator"}))
	_, err := w.Registry().CreateOperator(t.Context(), w.By(), registry.OperatorSpec{
		Account: credential.MustAccountID(owner), Roles: credential.MustScopes("viewer"), Tenant: credential.System})
	w.must(err)
	w.rotate("saas-key")
	st := w.until("saas-key", "failing", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Error != "" })
	if !strings.Contains(st.Attempt.Error, "forbidden") || len(h.steps) != 0 {
		t.Errorf("%q, called for %q", st.Attempt.Error, h.steps)
	}
}

// A webhook may not be where only the broker can reach, and gets no token of
// the broker's own audiences.
func TestWebhooksThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Grant(owner, "rotator", "rotate", acme)
	if err := w.declare("plain", "webhook", map[string]any{"url": "http://192.0.2.1/", "audience": "rotator"}); err == nil {
		t.Error("plain http beyond loopback was declared")
	}
	w.must(w.declare("private", "webhook", map[string]any{"url": "https://10.0.0.1/", "audience": "rotator"}))
	w.rotate("private")
	st := w.until("private", "failing", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Error != "" })
	if !strings.Contains(st.Attempt.Error, "can't be reached") {
		t.Errorf("%q", st.Attempt.Error)
	}
	h := newHook(w)
	w.must(w.declare("own", "webhook", map[string]any{"url": h.server.URL, "audience": w.URL() + "/admin"}))
	w.rotate("own")
	st = w.until("own", "failing", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Error != "" })
	if !strings.Contains(st.Attempt.Error, "no token for the webhook") || len(h.steps) != 0 {
		t.Errorf("%q", st.Attempt.Error)
	}
}
