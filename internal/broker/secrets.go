package broker

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
)

// Secrets is how shared secrets are rotated, and where in Vault they lie. It
// counts only with a Vault.
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
	return kinds.Layout{Mount: s.Mount, Tenants: s.TenantFolder, Shared: s.SharedFolder}
}

// openSecrets makes what rotates shared secrets; without a Vault nothing does.
func (b *Broker) openSecrets(registerer prometheus.Registerer) error {
	if b.vault == nil {
		return nil
	}
	stores := func(namespace, mount string) kinds.Store {
		if namespace == "" {
			return b.vault.KV(mount)
		}
		return b.vault.Namespace(namespace).KV(mount)
	}
	databases := func(namespace, mount string) kinds.Database {
		if namespace == "" {
			return b.vault.Database(mount)
		}
		return b.vault.Namespace(namespace).Database(mount)
	}
	doc, layout := b.config.doc, b.config.layout()
	manager, err := secrets.New(secrets.Config{
		Store: b.store, Registry: b.registry,
		Kinds:  []secrets.Kind{kinds.NewKV(stores, layout), kinds.NewStaticPair(databases, stores, layout)},
		Broker: doc.Writer, Now: b.deps.Now, Logger: b.deps.Logger,
		Workers: doc.Secrets.Workers, InspectEvery: doc.Secrets.InspectEvery, Crash: b.deps.Crash,
	})
	if err != nil {
		return err
	}
	b.secrets = manager
	return registerer.Register(manager)
}

// apiSecrets is what the API asks: nil without a type where there is nothing.
func (b *Broker) apiSecrets() api.Secrets {
	if b.secrets == nil {
		return nil
	}
	return b.secrets
}

// rotateSecrets rotates shared secrets, if there is anything that does.
func (b *Broker) rotateSecrets(ctx context.Context) error {
	if b.secrets == nil {
		<-ctx.Done()
		return nil
	}
	return b.secrets.Run(ctx)
}

// Secrets returns what rotates shared secrets, nil without a Vault.
func (b *Broker) Secrets() *secrets.Manager { return b.secrets }
