package broker

import (
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/issuer/outbound"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Secrets is how shared secrets are rotated, and where in Vault they lie.
type Secrets struct {
	Mount        string        `yaml:"mount" help:"KV engine, version 2, with the values of shared secrets"`
	TenantFolder string        `yaml:"tenant_folder" help:"folder there with a folder for each tenant"`
	SharedFolder string        `yaml:"shared_folder" help:"folder there with what is of no tenant"`
	Workers      int           `yaml:"workers" help:"rotations that make progress at a time, 1 to 64"`
	InspectEvery time.Duration `yaml:"inspect_every" help:"how often each secret is compared with what Vault holds, 10s to 24h"`
}

func defaultSecrets() Secrets {
	l := kinds.DefaultLayout()
	return Secrets{
		Mount: l.Mount, TenantFolder: l.Tenants, SharedFolder: l.Shared,
		Workers: secrets.DefaultWorkers, InspectEvery: secrets.DefaultInspect,
	}
}

func (c *Config) checkSecrets() error {
	s := c.doc.Secrets
	if field, err := c.layout().Check(); err != nil {
		return &KeyError{"secrets." + field, err.Error()}
	}
	if s.Workers < 1 || s.Workers > secrets.MaxWorkers {
		return &KeyError{"secrets.workers", "1 to 64"}
	}
	return within("secrets.inspect_every", s.InspectEvery, 10*time.Second, 24*time.Hour)
}

func (c *Config) layout() kinds.Layout {
	s := c.doc.Secrets
	return kinds.Layout{Mount: s.Mount, Tenants: s.TenantFolder, Shared: s.SharedFolder, Namespace: c.doc.Vault.Namespace}
}

// openSecrets makes what rotates shared secrets, and what the API serves them by.
func (b *Broker) openSecrets(ctx context.Context, registerer prometheus.Registerer) (*api.Rotating, error) {
	doc := b.config.doc
	manager, err := secrets.New(secrets.Config{
		Store: b.store, Registry: b.registry, Kinds: b.secretKinds(),
		Broker: doc.Writer, Now: b.deps.Now, Logger: b.deps.Logger,
		Workers: doc.Secrets.Workers, InspectEvery: doc.Secrets.InspectEvery, Crash: b.deps.Crash,
		CouldRead: b.couldRead, Held: b.held,
	})
	if err != nil {
		return nil, err
	}
	b.secrets = manager
	consumers, err := verifier.New(ctx, verifier.Config{
		Issuer: b.config.issuer.String(), Audience: b.config.issuer.Leases().String(), Keys: b.signing.manager, Now: b.deps.Now,
	})
	if err != nil {
		return nil, err
	}
	return &api.Rotating{Verifier: consumers, Secrets: manager}, registerer.Register(manager)
}

// couldRead reports whether an account could read a secret that doesn't name it
// as owner or consumer: its value is the account's own client secret, or at a
// place that the account's grants for leases reach.
func (b *Broker) couldRead(r store.Reader, account credential.AccountID, s *secrets.Secret) (bool, error) {
	if slices.Contains(s.Resources, kinds.ClientSecretResource(account)) {
		return true, nil
	}
	if b.leases == nil || s.Shared {
		return false, nil
	}
	places, err := b.leases.Readable(r, account, s.Tenant)
	for _, p := range places {
		if slices.Contains(s.Resources, b.config.layout().KVResource("", p.Mount, p.Path)) {
			return true, nil
		}
	}
	return false, err
}

// held lists the versions of a secret that an account's leases are of.
func (b *Broker) held(r store.Reader, account credential.AccountID, s *secrets.Secret) (versions []uint64, err error) {
	if b.leases == nil {
		return nil, nil
	}
	stamps, err := b.leases.Holding(r, account, s.Tenant, func(p lease.Place) bool {
		return slices.Contains(s.Resources, b.config.layout().KVResource("", p.Mount, p.Path))
	})
	for _, stamp := range stamps {
		versions = append(versions, kinds.ParseVersion(stamp))
	}
	return versions, err
}

// secretKinds are the kinds of secret that this broker rotates: without a Vault
// only what a webhook looks after.
func (b *Broker) secretKinds() []secrets.Kind {
	hook := kinds.NewWebhook(b.outbound, b.webhookToken)
	if b.vault == nil {
		return []secrets.Kind{hook}
	}
	in := func(namespace string) *vault.Client {
		if namespace == "" {
			return b.vault
		}
		return b.vault.Namespace(namespace)
	}
	stores := func(namespace, mount string) kinds.Store { return in(namespace).KV(mount) }
	databases := func(namespace, mount string) kinds.Database { return in(namespace).Database(mount) }
	layout := b.config.layout()
	return []secrets.Kind{
		kinds.NewKV(stores, layout), kinds.NewStaticPair(databases, stores, layout),
		kinds.NewSecret(b.registry, b.tryClientSecret, stores, layout, b.deps.Now), hook,
	}
}

// outbound returns a client that reaches what a webhook's spec allows.
func (b *Broker) outbound(ranges []string, bundle string) (kinds.Doer, error) {
	client, err := outbound.NewClient(outbound.Options{
		AllowedCIDRs: ranges, CABundle: bundle, AllowLoopbackHTTP: b.config.doc.Development.AllowLoopbackHTTP,
		NoRedirects: true, // each call carries a token, and is a POST
	})
	if err != nil {
		return nil, err // a nil *Client in the interface would not be nil
	}
	return client, nil
}

// webhookTokenLife is longer than any call of a webhook.
var webhookTokenLife = credential.MustLifetime(time.Minute)

// webhookToken issues the broker's own token for a webhook. That it may be lent
// is asked in a commit that writes nothing, so nothing is left when the broker
// ends here; account and grant are looked at again in the commit that issues.
func (b *Broker) webhookToken(ctx context.Context, word registry.Rotated, owner credential.AccountID, audience credential.Audience, tenant credential.Tenant) (credential.Secret, error) {
	if err := b.registry.Lent(ctx, word, owner); err != nil {
		return credential.Secret{}, err
	}
	got, err := b.issuer.Own(ctx, issuer.OwnRequest{Account: owner, Audience: audience, Tenant: tenant, Lifetime: webhookTokenLife})
	if err != nil {
		return credential.Secret{}, err
	}
	return credential.NewSecret([]byte(got.AccessToken)), nil
}

// tryClientSecret authenticates with a client secret as a workload does, at the
// endpoint that has no other effect. What it asks about is no token.
func (b *Broker) tryClientSecret(ctx context.Context, account credential.AccountID, secret credential.Secret) error {
	_, err := b.issuer.Introspect(ctx, issuer.IntrospectRequest{Request: issuer.Request{
		Form: url.Values{"token": {"none"}}, Basic: &issuer.Basic{ClientID: account.String(), Secret: secret},
	}})
	return err
}

// Secrets returns what rotates shared secrets.
func (b *Broker) Secrets() *secrets.Manager { return b.secrets }
