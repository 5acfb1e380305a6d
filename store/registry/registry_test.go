package registry_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

const brokerURL = "https://broker.example"

// world is a registry on a real store, with a clock that tests turn.
type world struct {
	*registry.Registry
	t  *testing.T
	st store.Store

	mu  sync.Mutex
	now time.Time
}

func newWorld(t *testing.T, opts ...registry.Option) *world {
	t.Helper()
	w := &world{t: t, now: start}
	st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "db"), Writer: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	w.st = st
	opts = append([]registry.Option{registry.WithCEL(func(kind, expr string) error {
		if expr == "broken(" {
			return errors.New("syntax: unbalanced")
		}
		return nil
	})}, opts...)
	w.Registry = registry.New(st, credential.MustIssuerURL(brokerURL), w.clock, opts...)
	return w
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

// as is an operator of the whole broker.
func as(subject, roles string) registry.By {
	return registry.By{
		Subject: credential.MustAccountID(subject), ClientID: credential.MustAccountID(subject),
		Tenant: credential.System, Roles: credential.MustScopes(roles), Reason: "a test", RequestID: "req-1", IP: "192.0.2.1",
	}
}

// within bounds an operator to a tenant.
func within(by registry.By, tenant string) registry.By {
	by.Tenant = credential.MustTenant(tenant)
	return by
}

var (
	admin    = as("root", "admin")
	operator = as("ops", "operator")
	viewer   = as("eve", "viewer")
)

// appoint makes these the operators that they say they are, as the operator
// admin. While there is none, anybody is; so admin comes first.
func (w *world) appoint(list ...registry.By) {
	w.t.Helper()
	for _, by := range list {
		must(w.CreateAccount(w.ctx(), admin, registry.Account{ID: by.Subject, Home: credential.System, Owner: "x"}))(w.t)
		must(w.CreateOperator(w.ctx(), admin, registry.OperatorSpec{Account: by.Subject, Roles: by.Roles, Tenant: by.Tenant}))(w.t)
	}
}

func publicJWK(t testing.TB, kid string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := jwks.NewKey(kid, credential.ES256, &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(jwk.JWK())
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) tenant(id string) registry.Tenant {
	w.t.Helper()
	return must(w.CreateTenant(w.ctx(), admin, registry.Tenant{ID: credential.MustTenant(id)}))(w.t)
}

func (w *world) account(id, home string) registry.Account {
	w.t.Helper()
	return must(w.CreateAccount(w.ctx(), admin, registry.Account{
		ID: credential.MustAccountID(id), Home: credential.MustTenant(home), Owner: "team " + id,
	}))(w.t)
}

func (w *world) audience(name, owner string) registry.Audience {
	w.t.Helper()
	return must(w.CreateAudience(w.ctx(), admin, registry.Audience{
		Name: credential.MustAudience(name), Owner: credential.MustAccountID(owner),
	}))(w.t)
}

func grantFor(account, audience string, tenants ...string) registry.Grant {
	g := registry.Grant{
		Account: credential.MustAccountID(account), Audience: credential.MustAudience(audience),
		Scopes: credential.MustScopes("read"), Reason: "needed",
	}
	for _, t := range tenants {
		g.Tenants = append(g.Tenants, credential.MustTenant(t))
	}
	return g
}

func (w *world) grant(account, audience string, tenants ...string) registry.Grant {
	w.t.Helper()
	return must(w.CreateGrant(w.ctx(), admin, grantFor(account, audience, tenants...)))(w.t)
}

func (w *world) ctx() context.Context { return w.t.Context() }

// stage is two tenants, a worker of the broker's home and one of acme's, and a
// service.
func stage(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.tenant("acme")
	w.tenant("globex")
	w.account("worker", "system")
	w.account("acme-worker", "acme")
	w.account("orders-svc", "system")
	w.audience("orders", "orders-svc")
	return w
}

// wantErr fails unless err is target.
func wantErr(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
}

// wantInvalid fails unless err is about field.
func wantInvalid(t testing.TB, err error, field string) {
	t.Helper()
	var bad *registry.InvalidError
	if !errors.As(err, &bad) || bad.Field != field {
		t.Fatalf("got %v, want a refusal of %s", err, field)
	}
	wantErr(t, err, registry.ErrInvalid)
}

// grantsAt reads as the issuer does.
func (w *world) grantsAt(account, audience, tenant string) []registry.GrantRef {
	w.t.Helper()
	var found []registry.GrantRef
	var id credential.Tenant
	if tenant != "" {
		id = credential.MustTenant(tenant)
	}
	err := w.st.View(w.ctx(), func(r store.Reader) (err error) {
		found, err = w.GrantsAt(r, credential.MustAccountID(account), credential.MustAudience(audience), id)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// records returns the audit records of a chain ("" is the broker's own).
func (w *world) records(tenant string) []audit.Record {
	w.t.Helper()
	chain := audit.Chain{Writer: "test"}
	if tenant != "" {
		chain.Tenant = credential.MustTenant(tenant)
	}
	var found []audit.Record
	err := w.st.View(w.ctx(), func(r store.Reader) error {
		for e, err := range r.Chain(chain, 0) {
			if err != nil {
				return err
			}
			rec, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			found = append(found, rec)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func TestTheWholePathOfAGrant(t *testing.T) {
	w := stage(t)
	g := w.grant("worker", "orders", "globex", "acme", "acme")
	if len(g.Tenants) != 2 || g.Tenants[0].String() != "acme" || g.Version == 0 || g.CreatedBy != "root" {
		t.Fatalf("made: %+v", g)
	}
	found := w.grantsAt("worker", "orders", "acme")
	if len(found) != 1 || found[0].Grant.ID != g.ID || !found[0].Listed || found[0].Ref.Version != g.Version || found[0].Grant.Tenants != nil {
		t.Fatalf("found: %+v", found)
	}
	if more := w.grantsAt("worker", "orders", ""); len(more) != 0 {
		t.Fatalf("without a tenant: %+v", more)
	}
	read := must(w.Grant(w.ctx(), viewer, g.ID))(t)
	if len(read.Tenants) != 2 || read.Version != g.Version {
		t.Fatalf("read: %+v", read)
	}
	last := w.records("")
	rec := last[len(last)-1]
	if rec.Type != "grant.created" || rec.Reason != "a test" || rec.Actor != "root" || rec.Subject != "worker" ||
		rec.Resource != (audit.Resource{Type: "grant", ID: g.ID}) || rec.RequestID != "req-1" || rec.IP != "192.0.2.1" || !rec.Time.Equal(start) {
		t.Fatalf("recorded: %+v", rec)
	}
}
