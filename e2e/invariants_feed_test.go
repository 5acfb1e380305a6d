package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// I9, for those who follow: a broker that comes back from a backup has never
// heard of what was revoked after it, and of keys that were made after it. No
// verifier accepts any of that again, whether it has fetched the key set since or
// not; and the keys that sign from now on are ones that never were before.
func TestInvariant_I9_FollowersForgetNothingWhenABackupComesBack(t *testing.T) {
	t.Run("sealed", func(t *testing.T) { t.Parallel(); comeBack(t) })
	t.Run("vault-transit", func(t *testing.T) {
		t.Parallel()
		v := newTestVault(t)
		comeBack(t, brokertest.Configure(v.configure(keys.TransitHome, devvault.ProxyForTest(t, v.Server).URL())))
	})
}

// returning is a broker whose backup comes back under those who follow it.
type returning struct {
	*brokertest.Broker
	t       *testing.T
	clock   *brokertest.Clock
	all     map[string]jwks.Key // every key that was ever published
	dead    map[string]string   // tokens that nobody may accept any more
	tenants map[string]string   // those at the tenant's service
	// A service of the whole broker and one of a tenant, each with a verifier
	// that fetches the keys and one that holds on to all it ever saw.
	whole, tenant *followedBroker
}

func comeBack(t *testing.T, opts ...brokertest.Option) {
	r := &returning{t: t, clock: brokertest.NewClock(), all: make(map[string]jwks.Key)}
	r.Broker = brokertest.Start(t, append(opts, brokertest.WithClock(r.clock))...)
	r.Tenants(acme, globex)
	r.Service(orders)
	r.AccountAt("acme-svc", acme)
	r.Audience("acme-orders", "acme-svc")
	for _, id := range []string{mailer, "leaver"} {
		r.Account(id)
		for _, audience := range []string{orders, "acme-orders"} {
			r.GrantTerms(registry.Grant{
				Account: credential.MustAccountID(id), Audience: credential.MustAudience(audience), Scopes: credential.MustScopes(read),
				Tenants: []credential.Tenant{credential.MustTenant(acme), credential.MustTenant(globex)}, MaxTTL: credential.MustLifetime(time.Hour),
			})
		}
	}
	r.whole = followAt(t, r.Broker, orders, credential.System, orders, r.clock.Now)
	r.tenant = followAt(t, r.Broker, "acme-svc", credential.MustTenant(acme), "acme-orders", r.clock.Now)
	r.note()

	config, err := broker.Load(r.ConfigFile(), broker.NoEnvironment)
	r.must(err)
	backup := filepath.Join(t.TempDir(), "backup.db")
	_, err = broker.Backup(t.Context(), config, backup, r.clock.Now)
	r.must(err)
	for range 3 { // the third signs with a key that the backup doesn't know
		r.must(r.Internal().Keys().Rotate(t.Context(), r.By(), keys.RotateOptions{Emergency: true, Reason: "test"}))
		r.note()
	}
	good := r.revokeEachWay()
	r.whole.caughtUp()
	r.tenant.caughtUp()
	hoarder := r.hoarder()
	refused := func(when string, v *verifier.Verifier, dead map[string]string) {
		t.Helper()
		for name, raw := range dead {
			if _, err := v.Verify(t.Context(), raw); err == nil {
				t.Errorf("%s: %s is accepted", when, name)
			}
		}
	}
	for _, raw := range good {
		if _, err := hoarder.Verify(t.Context(), raw); err != nil {
			t.Fatalf("a good token, before: %v", err)
		}
	}
	// From here on, at every moment.
	stop := make(chan struct{})
	var looking sync.WaitGroup
	for name, c := range map[string]struct {
		v    *verifier.Verifier
		dead map[string]string
	}{
		"all keys ever": {hoarder, r.dead}, "fetched keys": {r.whole.verifier, r.dead}, "one tenant's": {r.tenant.verifier, r.tenants},
	} {
		looking.Go(func() {
			for {
				refused(name, c.v, c.dead)
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}

	r.Stop()
	r.must(os.Remove(config.StorePath()))
	_, err = broker.Restore(t.Context(), broker.RestoreOptions{From: backup, Config: config, Now: r.clock.Now})
	r.must(err)
	serveAgain(t, config, r.clock)
	r.clock.Advance(6*time.Minute + time.Second) // assertions in flight are waited out: those who follow have no word for so long
	for name, raw := range good {
		if _, err := hoarder.Verify(t.Context(), raw); !errors.Is(err, verifier.ErrUnavailable) && !errors.Is(err, verifier.ErrRevoked) {
			t.Errorf("%s, without word of the broker: %v", name, err)
		}
	}
	for _, f := range []*followedBroker{r.whole, r.tenant} {
		await(t, "it is followed again", func() bool { return f.follower.Err() == nil && f.follower.Staleness() < time.Minute })
	}
	close(stop)
	looking.Wait()
	// What was issued before, the restore has revoked.
	refused("at last, all keys ever", hoarder, good)
	refused("at last, fetched keys", r.whole.verifier, good)

	fresh := r.TokenFor(mailer, orders, acme)
	token, err := r.whole.verifier.Verify(t.Context(), fresh)
	r.must(err)
	if _, known := r.all[token.KeyID()]; known {
		t.Errorf("key %s signs, which is from before", token.KeyID())
	}
	for kid := range publishedAt(t, r.URL()) {
		if _, known := r.all[kid]; known {
			t.Errorf("key %s is published, which is from before", kid)
		}
	}
}

// revokeEachWay makes a token for each way to end it, and ends them; the good
// ones are what is left. All are signed by keys that the backup doesn't know.
func (r *returning) revokeEachWay() (good map[string]string) {
	ctx, t := r.t.Context(), r.t
	reg := func(kind revocation.Kind, id, tenant string) func() error {
		return func() error {
			v := registry.Revocation{Kind: kind, ID: id}
			if tenant != "" {
				v.Tenant = credential.MustTenant(tenant)
			}
			_, err := r.Registry().Revoke(ctx, r.By(), v)
			return err
		}
	}
	one, chain, local := r.TokenFor(mailer, orders, acme), r.TokenFor(mailer, orders, acme), r.TokenFor(mailer, "acme-orders", acme)
	r.dead = map[string]string{
		"one token": one, "a chain's": chain, "an account's": r.TokenFor("leaver", orders, acme), "a tenant's": r.TokenFor(mailer, orders, globex),
	}
	r.tenants = map[string]string{"one token": local, "an account's": r.TokenFor("leaver", "acme-orders", acme)}
	for v, tokens := range map[*verifier.Verifier]map[string]string{r.whole.verifier: r.dead, r.tenant.verifier: r.tenants} {
		for name, raw := range tokens {
			if _, err := v.Verify(ctx, raw); err != nil {
				t.Fatalf("%s, while it is good: %v", name, err)
			}
		}
	}
	// Who stole a key signs with it what he likes, also for later.
	signer, err := r.Internal().Keys().Active()
	r.must(err)
	stolen := claims(t, one)
	stolen.ID, stolen.Txn = credential.NewID(), credential.NewID()
	stolen.IssuedAt = r.clock.Now().Add(6 * time.Minute).Truncate(time.Second)
	stolen.Expires = stolen.IssuedAt.Add(30 * time.Minute)
	forged, err := signer.Sign(ctx, stolen.AppendJSON(nil), "at+jwt")
	r.must(err)
	r.dead["one of a stolen key, from after the restore"] = forged
	for _, end := range []func() error{
		reg(revocation.Token, claims(t, one).ID, acme), reg(revocation.Token, claims(t, local).ID, acme),
		reg(revocation.Chain, claims(t, chain).Txn, acme),
		reg(revocation.AccountEpoch, "leaver", ""), reg(revocation.TenantEpoch, globex, ""),
		func() error { return r.Internal().Keys().Revoke(ctx, r.By(), kid(t, forged), "stolen") },
	} {
		r.must(end())
	}
	r.note()
	return map[string]string{"one that nobody revoked": r.TokenFor(mailer, orders, acme)}
}

// note remembers the keys that are published.
func (r *returning) note() {
	for _, k := range r.Internal().Keys().Public().Keys() {
		r.all[k.ID()] = k
	}
}

// hoarder is a verifier with every key that ever was, as one behind a cache that
// doesn't forget.
func (r *returning) hoarder() *verifier.Verifier {
	r.t.Helper()
	var all []jwks.Key
	for _, k := range r.all {
		all = append(all, k)
	}
	v, err := verifier.New(r.t.Context(), verifier.Config{
		Issuer: r.URL(), Audience: orders, Keys: jwks.NewSet(all...), Revocations: r.whole.follower, Now: r.clock.Now,
	})
	r.must(err)
	return v
}

func (r *returning) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}
