package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// followedBroker is a running broker with a service that follows it.
type followedBroker struct {
	*brokertest.Broker
	t        testing.TB
	follower *verifier.Follower
	verifier *verifier.Verifier
	home     credential.Tenant
	seqs     chan uint64
	seen     uint64
}

func follow(t *testing.T, b *brokertest.Broker, account string, home credential.Tenant, audience string) *followedBroker {
	t.Helper()
	return followAt(t, b, account, home, audience, time.Now)
}

func followAt(t *testing.T, b *brokertest.Broker, account string, home credential.Tenant, audience string, now func() time.Time) *followedBroker {
	t.Helper()
	f := &followedBroker{Broker: b, t: t, home: home, seqs: make(chan uint64, 10_000)}
	var err error
	f.follower, err = verifier.NewFollower(t.Context(), verifier.FollowerConfig{
		Issuer: b.URL(), Token: b.Client(account).Revocations(home), Now: now,
		Observe: func(o verifier.Observation) {
			if o.Err == nil {
				f.seqs <- o.Seq
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.verifier, err = verifier.New(t.Context(), verifier.Config{Issuer: b.URL(), Audience: audience, Revocations: f.follower, Now: now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.verifier.Close)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.follower.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return f
}

func (f *followedBroker) view(fn func(store.Reader) error) {
	f.t.Helper()
	if err := f.Internal().Store().View(f.t.Context(), fn); err != nil {
		f.t.Fatal(err)
	}
}

// caughtUp waits until the follower knows of everything that it may see.
func (f *followedBroker) caughtUp() {
	f.t.Helper()
	var newest uint64
	f.view(func(r store.Reader) error {
		p, err := revocation.Read(r, revocation.Within(f.home), 0, 1_000_000)
		if n := len(p.Entries); n > 0 {
			newest = p.Entries[n-1].Seq
		}
		return err
	})
	for f.seen < newest {
		f.seen = <-f.seqs
	}
}

// sign makes a token of any claims with the broker's own key.
func (f *followedBroker) sign(c credential.Claims) string {
	f.t.Helper()
	signer, err := f.Internal().Keys().Active()
	if err != nil {
		f.t.Fatal(err)
	}
	raw, err := signer.Sign(f.t.Context(), c.AppendJSON(nil), "at+jwt")
	if err != nil {
		f.t.Fatal(err)
	}
	return raw
}

// Through random histories of revocations of every kind, a follower says of
// every token what the broker itself says.
func TestAFollowerKnowsWhatTheBrokerKnows(t *testing.T) {
	b := brokertest.Start(t)
	b.Service(orders)
	f := follow(t, b, orders, credential.System, orders)
	ids := func(kind string, n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprint(kind, i))
		}
		return all
	}
	accounts, tenants := ids("account", 6), ids("tenant", 4)
	base := time.Now().UTC().Truncate(time.Second)
	round := 0
	rapid.Check(t, func(r *rapid.T) {
		round++
		world := fmt.Sprint("-", round/4) // some rounds share theirs
		account := func(what string) credential.AccountID {
			return credential.MustAccountID(rapid.SampledFrom(accounts).Draw(r, what) + world)
		}
		tenant := func(what string) credential.Tenant {
			return credential.MustTenant(rapid.SampledFrom(tenants).Draw(r, what) + world)
		}
		chain := func(of credential.Tenant) string { return fmt.Sprint(of, "-", rapid.IntRange(0, 2).Draw(r, "chain")) }
		at := func(what string) time.Time {
			return base.Add(-time.Duration(rapid.IntRange(0, 5).Draw(r, what)) * time.Second)
		}
		var tokens []credential.Claims
		for range rapid.IntRange(1, 8).Draw(r, "tokens") {
			c := credential.Claims{
				Issuer: b.URL(), Audience: credential.MustAudience(orders), ID: credential.NewID(), Tenant: tenant("tenant"),
				Subject: account("sub"), ClientID: account("client"), IssuedAt: at("iat"),
			}
			c.Txn, c.Expires = chain(c.Tenant), c.IssuedAt.Add(credential.MaxAccessLifetime)
			for range rapid.IntRange(0, 3).Draw(r, "actors") {
				c.Actor = &credential.Actor{Subject: account("act"), By: c.Actor}
			}
			tokens = append(tokens, c)
		}
		for range rapid.IntRange(0, 4).Draw(r, "revocations") {
			kind, one := rapid.IntRange(0, 3).Draw(r, "kind"), rapid.SampledFrom(tokens).Draw(r, "token")
			who, whose, epoch := account("of account"), tenant("of tenant"), at("epoch")
			txn := chain(whose)
			if err := b.Internal().Store().Update(t.Context(), func(tx store.Tx) (err error) {
				switch kind {
				case 0:
					_, err = revocation.Add(tx, base, one, one.ClientID)
				case 1:
					_, err = revocation.AddChain(tx, base, whose, txn, one.ClientID)
				case 2:
					err = revocation.SetEpoch(tx, revocation.Account(who), epoch)
				case 3:
					err = revocation.SetEpoch(tx, revocation.Tenant(whose), epoch)
				}
				return err
			}); err != nil {
				r.Fatal(err)
			}
		}
		f.caughtUp()
		for _, c := range tokens {
			var dead bool
			f.view(func(reader store.Reader) (err error) {
				dead, err = revocation.Revoked(reader, c)
				return err
			})
			_, err := f.verifier.Verify(t.Context(), f.sign(c))
			if dead != errors.Is(err, verifier.ErrRevoked) || !dead && err != nil {
				r.Fatalf("the broker: revoked %v, the follower: %v, token %+v", dead, err, c)
			}
		}
	})
}

// A service at home in a tenant learns of what ends its tokens, each way that
// an operator has, and of a tenant that is not its own it accepts nothing.
func TestAServiceOfOneTenantFollows(t *testing.T) {
	b := brokertest.Start(t)
	b.Tenants(acme, globex)
	b.AccountAt("acme-svc", acme)
	b.Audience("acme-orders", "acme-svc")
	b.Worker("worker", "acme-orders", read, acme, globex)
	b.Worker("other", "acme-orders", read, acme)
	f := follow(t, b, "acme-svc", credential.MustTenant(acme), "acme-orders")
	verify := func(raw string) error {
		_, err := f.verifier.Verify(t.Context(), raw)
		return err
	}
	if err := verify(b.TokenFor("worker", "acme-orders", globex)); !errors.Is(err, verifier.ErrUnavailable) {
		t.Errorf("a tenant whose revocations it isn't told: %v", err)
	}
	other := b.TokenFor("other", "acme-orders", acme)
	for _, way := range []struct {
		name string
		end  func(c credential.Claims) error
	}{
		{"one token", func(c credential.Claims) error {
			_, err := b.Registry().Revoke(t.Context(), b.By(), registry.Revocation{Kind: revocation.Token, ID: c.ID, Tenant: c.Tenant})
			return err
		}},
		{"its chain", func(c credential.Claims) error {
			_, err := b.Registry().Revoke(t.Context(), b.By(), registry.Revocation{Kind: revocation.Chain, ID: c.Txn, Tenant: c.Tenant})
			return err
		}},
		{"its account's", func(c credential.Claims) error {
			_, err := b.Registry().Revoke(t.Context(), b.By(), registry.Revocation{Kind: revocation.AccountEpoch, ID: c.Subject.String()})
			return err
		}},
		{"its account", func(c credential.Claims) error {
			_, err := b.Registry().DisableAccount(t.Context(), b.By(), c.Subject, 0)
			if err == nil {
				_, err = b.Registry().EnableAccount(t.Context(), b.By(), c.Subject, 0)
			}
			return err
		}},
	} {
		raw := b.TokenFor("worker", "acme-orders", acme)
		token, err := f.verifier.Verify(t.Context(), raw)
		if err != nil {
			t.Fatalf("%s: %v", way.name, err)
		}
		if err := way.end(token.Claims()); err != nil {
			t.Fatalf("%s: %v", way.name, err)
		}
		f.caughtUp()
		if err := verify(raw); !errors.Is(err, verifier.ErrRevoked) {
			t.Errorf("%s: %v", way.name, err)
		}
		if err := verify(other); err != nil {
			t.Errorf("%s: another account's: %v", way.name, err)
		}
	}
	// It can't ask any more when its own tenant is suspended, and knows all the same.
	if _, err := b.Registry().SuspendTenant(t.Context(), b.By(), credential.MustTenant(acme), 0); err != nil {
		t.Fatal(err)
	}
	await(t, "word that the tenant is suspended", func() bool { return errors.Is(verify(other), verifier.ErrRevoked) })
}

// An emergency at the keys: what the revoked one signed is refused at once, and
// what the next one signs is accepted.
func TestARevokedKeyIsRefusedAtOnce(t *testing.T) {
	b := brokertest.Start(t)
	b.Tenants(acme)
	b.Service(orders)
	b.Worker(mailer, orders, read, acme)
	f := follow(t, b, orders, credential.System, orders)
	before := b.TokenFor(mailer, orders, acme)
	token, err := f.verifier.Verify(t.Context(), before)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Internal().Keys().Revoke(t.Context(), b.By(), token.KeyID(), "stolen"); err != nil {
		t.Fatal(err)
	}
	f.caughtUp()
	if _, err := f.verifier.Verify(t.Context(), before); !errors.Is(err, verifier.ErrRevoked) {
		t.Errorf("the verifier still holds the key, and %v", err)
	}
	if _, err := f.verifier.Verify(t.Context(), b.TokenFor(mailer, orders, acme)); err != nil {
		t.Errorf("the standby key's: %v", err)
	}
}

// Verifiers who wait don't hold up the end of the broker: it would end with an
// error when they are still there at the deadline.
func TestWaitingVerifiersDontHoldUpTheEnd(t *testing.T) {
	b := brokertest.Start(t, brokertest.Configure(func(d *broker.Document) { d.Timeouts.Shutdown = 10 * time.Second }))
	b.Service(orders)
	follow(t, b, orders, credential.System, orders)
	for !strings.Contains(metricsOf(t, b), "tenantbroker_verifiers 1") {
		runtime.Gosched()
	}
	b.Stop()
}

func metricsOf(t *testing.T, b *brokertest.Broker) string {
	t.Helper()
	resp, err := http.Get(b.OpsURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
