package lease

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
)

// run runs the manager until the test ends.
func (w *world) run() {
	w.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.m.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
	})
}

// A suspension reaches the database while Run runs, and so does an end.
func TestRunEndsWhatIsDue(t *testing.T) {
	w := newWorld(t)
	grant, others := w.grant("worker", tenants("acme")), w.grant("other", tenants("globex"))
	w.obtain(w.token("worker", "acme", grant), "database:orders")
	last := w.obtain(w.token("other", "globex", others), "database:orders")
	w.run()
	_, err := w.reg.SuspendTenant(t.Context(), w.op, credential.MustTenant("acme"), 0)
	w.must(err)
	w.m.Wake()
	w.eventually(func() bool { return w.users() == 1 })
	w.clock.pass(last.ExpiresAt.Sub(w.now()))
	w.eventually(func() bool { return w.users() == 0 && len(w.all()) == 0 })
}

// The audit log tells what changed; tokens that come and go are no change.
func TestChecksAreMadeWhenSomethingChanged(t *testing.T) {
	w := newValues(t)
	w.obtain(w.token("worker", "acme", w.grant("worker", tenants("acme"))), "kv:mail")
	changed := func(position uint64) (bool, uint64) {
		t.Helper()
		yes, end, err := w.m.changes(t.Context(), position)
		w.must(err)
		return yes, end
	}
	yes, end := changed(0)
	if !yes || end == 0 {
		t.Fatal("the first look finds nothing")
	}
	if yes, _ := changed(end); yes {
		t.Error("nothing was added")
	}
	add := func(kind string) {
		w.must(w.st.Update(t.Context(), func(tx store.Tx) error {
			r := w.m.record(&row{Tenant: credential.MustTenant("acme"), Account: credential.MustAccountID("worker"), Of: of("kv:mail")}, kind, "r")
			tx.Append(r)
			return nil
		}))
	}
	for _, kind := range []string{"token.issued", "token.denied", "lease.created", "lease.gone"} {
		add(kind)
	}
	if yes, _ := changed(end); yes {
		t.Error("tokens and leases that come and go are a change")
	}
	for _, kind := range []string{"tenant.suspended", "account.disabled", "grant.deleted", "token.revoked", "something.new"} {
		_, end = changed(end)
		add(kind)
		if yes, _ := changed(end); !yes {
			t.Errorf("%s is no change", kind)
		}
	}
	_, end = changed(end)
	if yes, _ := changed(end + maxChanges + 5); !yes {
		t.Error("further behind than can be read")
	}
}

// Without any change on record, all is checked once a minute: a grant's
// exception may be over.
func TestAllIsCheckedNowAndThen(t *testing.T) {
	w := newValues(t)
	g := w.obtain(w.token("worker", "acme", w.grant("worker", tenants("acme"))), "kv:mail")
	w.pass()
	w.must(w.st.Update(t.Context(), func(tx store.Tx) error { // as no record tells
		l, err := load(tx, g.ID)
		if err != nil {
			return err
		}
		next := l.copy()
		next.Grant = "g_gone"
		return next.put(tx, l)
	}))
	w.pass()
	if w.row(g.ID) == nil {
		t.Fatal("checked without a change")
	}
	w.clock.pass(checkAll)
	w.pass()
	if w.row(g.ID) != nil {
		t.Error("not checked after a minute")
	}
}

func TestNewRefuses(t *testing.T) {
	w := newValues(t)
	good := Config{Store: w.st, Registry: w.reg, Issuer: w.issuer, Vault: w.faults, Targets: w.targets(), Now: time.Now}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"store": func(c *Config) { c.Store = nil }, "registry": func(c *Config) { c.Registry = nil }, "vault": func(c *Config) { c.Vault = nil },
		"clock": func(c *Config) { c.Now = nil }, "issuer": func(c *Config) { c.Issuer = credential.IssuerURL{} },
		"targets": func(c *Config) { c.Targets = Targets{} }, "settle": func(c *Config) { c.Settle = -1 },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("without a %s", name)
		}
	}
}

// No value and no password is in the store, the log, a record or an error.
func TestNoSecretStaysBehind(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.m.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	db, kv := w.obtain(h, "database:orders"), w.obtain(h, "kv:mail")
	w.faults.fail("revoke", errors.New("broken"))
	w.must(w.m.Release(t.Context(), h, db.ID))
	w.pass()
	list, _, err := w.m.List(t.Context(), w.op, Filter{}, "", 10)
	w.must(err)
	var all strings.Builder
	all.WriteString(log.String())
	for _, v := range []any{db, kv, list, w.records()} {
		slog.New(slog.NewTextHandler(&all, nil)).Info("x", "v", v)
	}
	w.must(w.st.View(t.Context(), func(r store.Reader) error {
		for _, table := range []store.Table{leases, byTenant, byAccount, byDue} {
			for at, err := range r.Scan(table, "", "") {
				if err != nil {
					return err
				}
				all.WriteString(at.Key + string(at.Value))
			}
		}
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			all.Write(e.Raw)
		}
		return nil
	}))
	if !strings.Contains(all.String(), w.userOf(db).Username) {
		t.Error("this looks in the wrong place")
	}
	for _, secret := range []string{w.userOf(db).Password, "acme-value"} {
		if strings.Contains(all.String(), secret) {
			t.Error("a secret is there")
		}
	}
}

func TestValuesAreBounded(t *testing.T) {
	w := newValues(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	put := func(n int) {
		_, err := w.client.KV("secret").Put(t.Context(), "t"+strings.TrimPrefix(w.database, "orders_")+"/acme/mail", map[string]any{"k": strings.Repeat("v", n)}, vault.NoCAS)
		w.must(err)
	}
	put(MaxData - len(`{"k":""}`))
	w.obtain(h, "kv:mail")
	put(MaxData - len(`{"k":""}`) + 1)
	if _, err := w.m.Obtain(t.Context(), h, Request{Of: of("kv:mail")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	w.faults.fail("value", vault.ErrUnavailable)
	if _, err := w.m.Obtain(t.Context(), h, Request{Of: of("kv:mail")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func FuzzDecodeLease(f *testing.F) {
	f.Add([]byte(`{"id":"x","of":"kv:mail","tenant":"acme","account":"worker","state":"active","mount":"secret"}`))
	f.Add([]byte(`{"id":"x","of":"kv:mail","tenant":"acme","account":"worker","state":"ending","mount":"secret"}`))
	f.Add([]byte(`{"id":"x","state":"ending","ends":{}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, value []byte) {
		l, err := decode(store.Row{Key: "x", Value: value, Version: 7})
		if err != nil {
			return
		}
		if l.ID != "x" || l.version != 7 || l.Of.IsZero() || l.Tenant.IsZero() || (l.State == Ending) != (l.Ends != nil) {
			t.Fatalf("%+v", l)
		}
		_ = l.derived()
		_ = l.copy()
	})
}

func TestIDs(t *testing.T) {
	now := time.Now()
	a, b := newID(now), newID(now.Add(time.Millisecond))
	if !validID(a) || !validID(b) || a >= b || newID(now) == a {
		t.Errorf("%s, %s", a, b)
	}
	for _, bad := range []string{"", a[1:], a + "0", strings.ToUpper(a[:25]) + "U", strings.Repeat("u", 26), "..", a[:25] + "\x00"} {
		if validID(bad) {
			t.Errorf("%q", bad)
		}
	}
	if p := RolePrefix(credential.MustIssuerURL("https://a.example")); p == RolePrefix(credential.MustIssuerURL("https://b.example")) || len(p)+idLength > 63 {
		t.Errorf("%s", p)
	}
}
