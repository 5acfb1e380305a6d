package broker_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// metric returns the value of a series as /metrics shows it, "" if it is not there.
func metric(t *testing.T, b *brokertest.Broker, series string) string {
	t.Helper()
	_, body := get(t, b.OpsURL()+"/metrics", "")
	for line := range strings.Lines(body) {
		if value, found := strings.CutPrefix(line, series+" "); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// sick is a store that can't be written while it is told so.
type sick struct {
	store.Store
	now atomic.Bool
}

func (s *sick) Healthy() error {
	if s.now.Load() {
		return store.ErrUnavailable
	}
	return s.Store.Healthy()
}

func (s *sick) Update(ctx context.Context, fn func(store.Tx) error) error {
	if s.now.Load() {
		return store.ErrUnavailable
	}
	return s.Store.Update(ctx, fn)
}

func TestMetricsSayWhatToAlarmOn(t *testing.T) {
	var ill *sick
	clock := brokertest.NewClock()
	b := declared(t, brokertest.WithClock(clock), brokertest.WrapStore(func(s store.Store) store.Store {
		ill = &sick{Store: s}
		return ill
	}))
	check := func(when string, want map[string]string) {
		t.Helper()
		for series, value := range want {
			if got := metric(t, b, series); got != value {
				t.Errorf("%s: %s is %q, want %q", when, series, got, value)
			}
		}
	}
	check("at first", map[string]string{
		`tenantbroker_store_healthy`:                              "1",
		`tenantbroker_signing_key_overdue`:                        "0",
		`tenantbroker_signing_keys{state="active"}`:               "1",
		`tenantbroker_signing_keys{state="retiring"}`:             "0",
		`tenantbroker_signing_keys{state="revoked"}`:              "0",
		`tenantbroker_denials_total{reason="fan_out_exceeded"}`:   "0",
		`tenantbroker_denials_total{reason="assertion_replayed"}`: "0",
		`tenantbroker_denials_total{reason="other"}`:              "0",
	})
	if got := metric(t, b, `tenantbroker_signing_keys{state="standby"}`); got == "" || got == "0" {
		t.Errorf("%q keys stand by", got)
	}
	ill.now.Store(true)
	defer ill.now.Store(false)
	// A rotation that can't be written: overdue only when its deadline has passed.
	clock.Advance(30*24*time.Hour + time.Hour)
	check("when a rotation is due", map[string]string{`tenantbroker_store_healthy`: "0", `tenantbroker_signing_key_overdue`: "0"})
	clock.Advance(24 * time.Hour)
	check("a day later", map[string]string{`tenantbroker_signing_key_overdue`: "1"})
	ill.now.Store(false)
	check("afterwards", map[string]string{`tenantbroker_store_healthy`: "1"})
}

func TestDenialsAreCountedByReason(t *testing.T) {
	b := declared(t)
	b.Tenants("globex", "initech")
	b.Account("wide")
	b.GrantTerms(registry.Grant{
		Account: credential.MustAccountID("wide"), Audience: credential.MustAudience("orders"), Scopes: credential.MustScopes("read"),
		Tenants: []credential.Tenant{credential.MustTenant("acme"), credential.MustTenant("globex")},
		FanOut:  &registry.FanOut{Tenants: 1, Window: time.Hour},
	})
	ask := func(account, tenant string) error {
		_, err := b.Client(account).Token(t.Context(), client.TokenRequest{
			Tenant: credential.MustTenant(tenant), Audience: credential.MustAudience("orders"),
		})
		return err
	}
	if err := ask("wide", "acme"); err != nil {
		t.Fatal(err)
	}
	for account, tenant := range map[string]string{"wide": "globex", "worker": "initech"} {
		if err := ask(account, tenant); err == nil {
			t.Errorf("%s got a token for %s", account, tenant)
		}
	}
	resp, err := http.PostForm(b.URL()+"/oauth2/token", url.Values{"grant_type": {"made up"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	for reason, want := range map[string]string{"fan_out_exceeded": "1", "no_grant": "1", "other": "1", "unknown_tenant": "0"} {
		if got := metric(t, b, `tenantbroker_denials_total{reason="`+reason+`"}`); got != want {
			t.Errorf("%s denials for %s, want %s", got, reason, want)
		}
	}
}

// Behind a proxy that isn't named all clients are one address.
func TestPlainHTTPBehindNobodyKnowsWhomIsWarnedOf(t *testing.T) {
	for proxies, want := range map[string]bool{"": true, "10.0.0.0/8": false} {
		b := brokertest.Start(t, brokertest.Configure(func(d *broker.Document) { d.Proxies = proxies }))
		b.Stop()
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		opened, err := broker.Open(t.Context(), config(t, b.ConfigFile()), broker.Deps{
			Listener: l, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := opened.Run(ctx); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(log.String(), "no trusted_proxies"); got != want {
			t.Errorf("trusted_proxies %q: warned %t: %s", proxies, got, log.String())
		}
	}
}
