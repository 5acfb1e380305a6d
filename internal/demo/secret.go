package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
)

// The secret of the play: a key of acme's mail service that its workers share.
const (
	mailID   = "mail-key"
	mailPath = "tenants/acme/mail"
	mailKey  = "kv:mail" // what workers lease
	targets  = `targets:
  - {kind: kv, name: mail, mount: secret, path: "tenants/{tenant}/mail", ttl: 2s}
`
)

// targetsFile writes what workloads may lease.
func (s *stage) targetsFile() (string, error) {
	path := filepath.Join(s.folder, "leases.yaml")
	return path, os.WriteFile(path, []byte(targets), 0o600)
}

// rotateSecret rotates a shared secret while a worker uses it without a pause.
func (s *stage) rotateSecret(ctx context.Context) error {
	s.chapter("A secret that workers still share is rotated while one of them uses it")
	if err := s.declareSecret(ctx); err != nil {
		return err
	}
	mailer, err := client.New(client.Config{Issuer: s.issuer, Auth: client.PrivateKeyJWT{Account: worker, Key: s.workerKey}})
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &consumer{client: mailer, mail: s.vault.mailAccepts, got: make(chan struct{})}
	ended := c.run(running)
	select {
	case <-c.got:
	case err := <-ended:
		return fmt.Errorf("demo: the consumer: %w", err)
	}
	first := c.key()
	s.say("%s leases the key by its own token, and sends mail with it all the time", worker)
	st, err := s.rotateMail(ctx)
	if err != nil {
		return err
	}
	cancel()
	if err := <-ended; err != nil {
		return fmt.Errorf("demo: the consumer: %w", err)
	}
	for _, e := range st.Last.Journal {
		if e.What == "done" {
			s.say("    %s  %s", e.At.Format("15:04:05.000"), e.Step)
		}
	}
	s.expect("the rotation", st.Last.Outcome, "succeeded")
	s.expect(fmt.Sprintf("of %d mails sent meanwhile, refused", c.sent.Load()), fmt.Sprint(c.refused.Load()), "0")
	if c.sent.Load() == 0 {
		s.expect("mails were sent", "none", "some")
	}
	second := c.key()
	s.expect("the worker has another key now", fmt.Sprint(first != second), "true")
	for _, k := range []struct{ what, key, want string }{{"the key of before", first, "false"}, {"the new key", second, "true"}} {
		accepted, err := s.vault.mailAccepts(ctx, k.key)
		if err != nil {
			return err
		}
		s.expect("the mail service takes "+k.what, fmt.Sprint(accepted), k.want)
	}
	return nil
}

// declareSecret puts a key where it has lain for years, and has the broker
// rotate it from now on.
func (s *stage) declareSecret(ctx context.Context) error {
	if err := s.vault.root(ctx, http.MethodPost, "secret/data/"+mailPath, map[string]any{"data": map[string]any{"value": "as-it-was-since-2019"}}); err != nil {
		return err
	}
	scope, err := credential.ParseScopes(mailKey)
	if err != nil {
		return err
	}
	if _, err := s.admin.Grants().Create(ctx, wire.GrantCreate{
		Account: worker, Audience: s.issuer.Leases(), Scopes: scope, Tenants: []credential.Tenant{acme}, Reason: "the key of acme's mail service",
	}); err != nil {
		return err
	}
	spec, err := json.Marshal(kinds.KVSpec{Path: mailPath})
	if err != nil {
		return err
	}
	_, err = s.admin.Secrets().Create(ctx, wire.SecretCreate{Reason: "demo", SecretTerms: wire.SecretTerms{
		ID: mailID, Kind: "kv", Spec: spec, Tenant: acme, Owner: worker, Consumers: []credential.AccountID{worker},
		Overlap: "1s", // there is one worker, which acknowledges when it has switched
	}})
	return err
}

// rotateMail has the secret rotated, and waits for the end.
func (s *stage) rotateMail(ctx context.Context) (wire.SecretStatus, error) {
	before, err := s.admin.Secrets().Get(ctx, mailID)
	if err != nil {
		return wire.SecretStatus{}, err
	}
	if _, err := s.admin.Secrets().Rotate(ctx, mailID, before.Version, false, "nobody knows who has it"); err != nil {
		return wire.SecretStatus{}, err
	}
	for {
		now, err := s.admin.Secrets().Get(ctx, mailID)
		if err != nil {
			return wire.SecretStatus{}, err
		}
		if now.Status.Attempt == nil && now.Status.Last != nil {
			return now.Status, nil
		}
		select {
		case <-ctx.Done():
			return wire.SecretStatus{}, fmt.Errorf("demo: the rotation is still in %s: %w", now.Status.Step, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// consumer is a worker with the key: it sends mail with what it has, and
// changes over when its lease brings another.
type consumer struct {
	client *client.Client
	mail   func(ctx context.Context, key string) (accepted bool, err error)

	mu            sync.Mutex
	value         string
	got           chan struct{} // closed with the first key
	once          sync.Once
	sent, refused atomic.Int64
}

func (c *consumer) key() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value
}

// run leases and sends until ctx ends. What it returns then tells why.
func (c *consumer) run(ctx context.Context) <-chan error {
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	var both sync.WaitGroup
	var leasing, sending error
	both.Go(func() { defer cancel(); leasing = c.lease(ctx) })
	both.Go(func() { defer cancel(); sending = c.send(ctx) })
	go func() {
		both.Wait()
		ended <- errors.Join(leasing, sending)
	}()
	return ended
}

func (c *consumer) lease(ctx context.Context) error {
	of, err := credential.ParseLeasable(mailKey)
	if err != nil {
		return err
	}
	return c.client.Leases().Keep(ctx, client.Keeping{Request: client.LeaseRequest{Tenant: acme, Of: of}, Changed: c.changed})
}

// changed takes a key and says that it is in use.
func (c *consumer) changed(ctx context.Context, l *client.Lease) error {
	var data struct {
		Value   string `json:"value"`
		Version string `json:"tenantbroker_version"` // none in a value that the broker didn't write
	}
	if err := json.Unmarshal(l.Reveal(), &data); err != nil {
		return errors.New("demo: the leased value is not JSON")
	}
	c.mu.Lock()
	c.value = data.Value
	c.mu.Unlock()
	c.once.Do(func() { close(c.got) })
	if data.Version == "" {
		return nil
	}
	version, err := strconv.ParseUint(data.Version, 10, 64)
	if err != nil {
		return err
	}
	_, err = c.client.AckSecret(ctx, acme, mailID, version)
	return err
}

func (c *consumer) send(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
		key := c.key()
		if key == "" {
			continue
		}
		accepted, err := c.mail(ctx, key)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case !accepted:
			c.refused.Add(1)
		}
		c.sent.Add(1)
	}
}

// mailAccepts is the mail service: it takes every version of the key that is
// not destroyed.
func (v *custody) mailAccepts(ctx context.Context, key string) (bool, error) {
	answer, err := v.Do(ctx, http.MethodGet, "secret/metadata/"+mailPath, nil)
	if err != nil {
		return false, err
	}
	data, _ := answer["data"].(map[string]any)
	versions, _ := data["versions"].(map[string]any)
	for number, about := range versions {
		if version, _ := about.(map[string]any); version["destroyed"] == true {
			continue
		}
		answer, err := v.Do(ctx, http.MethodGet, "secret/data/"+mailPath+"?version="+number, nil)
		if said, ok := errors.AsType[*devvault.Error](err); ok && said.Status == http.StatusNotFound {
			continue // destroyed since
		}
		if err != nil {
			return false, err
		}
		outer, _ := answer["data"].(map[string]any)
		inner, _ := outer["data"].(map[string]any)
		if inner["value"] == key {
			return true, nil
		}
	}
	return false, nil
}
