package broker_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// declared is a broker with a tenant, a service and a worker whose tokens live
// for an hour, longer than a restored broker waits.
func declared(t *testing.T, opts ...brokertest.Option) *brokertest.Broker {
	t.Helper()
	b := brokertest.Start(t, opts...)
	b.Tenants("acme")
	b.Service("orders")
	b.Account("worker")
	b.GrantTerms(registry.Grant{
		Account: credential.MustAccountID("worker"), Audience: credential.MustAudience("orders"),
		Scopes: credential.MustScopes("read"), Tenants: []credential.Tenant{credential.MustTenant("acme")},
		MaxTTL: credential.MustLifetime(time.Hour),
	})
	return b
}

func config(t *testing.T, file string) broker.Config {
	t.Helper()
	c, err := broker.Load(file, broker.NoEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// elsewhere is a data folder for a restored store: with the configuration and
// the key-encryption key of b, and nothing else.
func elsewhere(t *testing.T, b *brokertest.Broker) broker.Config {
	t.Helper()
	folder := filepath.Join(shortDir(t), "data")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"broker.yaml", "kek.key"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(b.ConfigFile()), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config(t, filepath.Join(folder, "broker.yaml"))
}

// serveAgain serves a restored store at the address that its issuer names.
func serveAgain(t *testing.T, c broker.Config, now func() time.Time) *broker.Broker {
	t.Helper()
	l, err := net.Listen("tcp", strings.TrimPrefix(c.Issuer().String(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.Open(t.Context(), c, broker.Deps{Now: now, Listener: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

// assertion is a client assertion of the worker's, made by hand so that it can
// be sent twice.
func assertion(t *testing.T, b *brokertest.Broker, account string, now time.Time) string {
	t.Helper()
	key := b.Key(account)
	private, ok := key.Key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("a key of type %T", key.Key)
	}
	options := (&jose.SignerOptions{}).WithHeader("kid", key.KeyID)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, options)
	if err != nil {
		t.Fatal(err)
	}
	payload := fmt.Sprintf(`{"iss":%q,"sub":%q,"aud":%q,"jti":%q,"iat":%d,"exp":%d}`,
		account, account, b.URL(), credential.NewID(), now.Unix(), now.Add(4*time.Minute).Unix())
	signed, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// present sends an assertion for a token and returns status, error code and
// Retry-After.
func present(t *testing.T, issuer, assertion string) (status int, code, retryAfter string) {
	t.Helper()
	resp, err := http.PostForm(issuer+"/oauth2/token", url.Values{
		"grant_type": {"client_credentials"}, "audience": {"orders"}, "tenant": {"acme"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct {
		Error string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body.Error, resp.Header.Get("Retry-After")
}

func get(t *testing.T, address, bearer string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func keyIDs(t *testing.T, issuer string) string {
	t.Helper()
	_, body := get(t, issuer+"/.well-known/jwks.json", "")
	return body
}

// I9: a backup that is taken while tokens are issued, restored and served.
func TestBackupWhileServingAndRestore(t *testing.T) {
	clock := brokertest.NewClock()
	b := declared(t, brokertest.WithClock(clock))
	before := b.TokenFor("worker", "orders", "acme")
	admin := b.AdminToken()

	backup := filepath.Join(shortDir(t), "backup.db")
	issued := underLoad(t, b, func() {
		hot, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), backup, clock.Now)
		if err != nil || !hot {
			t.Errorf("hot %v, %v", hot, err)
		}
	})
	if issued == 0 {
		t.Error("no token was issued meanwhile")
	}
	if info, err := os.Stat(backup); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	after := b.TokenFor("worker", "orders", "acme")
	used := assertion(t, b, "worker", clock.Now())
	if status, code, _ := present(t, b.URL(), used); status != http.StatusOK {
		t.Fatalf("%d %s", status, code)
	}
	oldKeys := keyIDs(t, b.URL())
	service := b.Client("orders")
	active := func(token string) (bool, error) {
		answer, err := service.Introspect(t.Context(), credential.NewSecret([]byte(token)))
		if err != nil {
			return false, err
		}
		return answer.Active, nil
	}
	for name, token := range map[string]string{"before": before, "after": after} {
		if on, err := active(token); !on || err != nil {
			t.Fatalf("the token from %s the backup: %v, %v", name, on, err)
		}
	}
	b.Stop()

	to := elsewhere(t, b)
	done, err := broker.Restore(t.Context(), broker.RestoreOptions{
		From: backup, Config: to, Now: clock.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if done.Records == 0 || len(done.Revoked) < 2 {
		t.Errorf("%d records verified, %d keys revoked", done.Records, len(done.Revoked))
	}
	if left := done.Until.Sub(clock.Now()); left < 5*time.Minute+55*time.Second || left > 6*time.Minute {
		t.Errorf("waits %s", left)
	}
	again := serveAgain(t, to, clock.Now)

	// Nobody is authenticated while an assertion that the backup doesn't know
	// of could be accepted again; and /readyz says so.
	check := func(when string) {
		t.Helper()
		status, code, wait := present(t, b.URL(), used)
		if status != http.StatusServiceUnavailable || code != "temporarily_unavailable" || wait == "" {
			t.Errorf("%s: a used assertion: %d %s, Retry-After %q", when, status, code, wait)
		}
		if _, err := active(before); err == nil {
			t.Errorf("%s: introspection authenticated somebody", when)
		}
		if status, body := readyOverSocket(t, to); status != http.StatusServiceUnavailable || !strings.Contains(body, "restored") {
			t.Errorf("%s: readyz: %d %s", when, status, body)
		}
	}
	check("at once")
	if status, _ := get(t, b.URL()+"/v1/tenants", admin); status != http.StatusUnauthorized {
		t.Errorf("the old operator's token: %d", status)
	}
	clock.Advance(done.Until.Sub(clock.Now()) - time.Second)
	check("a second before the end")
	clock.Advance(2 * time.Second)
	if status, body := readyOverSocket(t, to); status != http.StatusOK {
		t.Errorf("readyz afterwards: %d %s", status, body)
	}
	if status, code, _ := present(t, b.URL(), used); status != http.StatusUnauthorized || code != "invalid_client" {
		t.Errorf("a used assertion afterwards: %d %s", status, code)
	}
	for name, token := range map[string]string{"before": before, "after": after} {
		if on, err := active(token); on || err != nil {
			t.Errorf("the token from %s the backup: active %v, %v", name, on, err)
		}
	}
	fresh := b.TokenFor("worker", "orders", "acme")
	if on, err := active(fresh); !on || err != nil {
		t.Errorf("a fresh token: active %v, %v", on, err)
	}
	for _, kid := range done.Revoked {
		if strings.Contains(keyIDs(t, b.URL()), kid) {
			t.Errorf("the backup's key %s is published", kid)
		}
		if !strings.Contains(oldKeys, kid) {
			t.Errorf("%s was no key of the backup", kid)
		}
	}
	checkChains(t, again)
}

// underLoad issues tokens from several goroutines while f runs.
func underLoad(t *testing.T, b *brokertest.Broker, f func()) (issued int64) {
	t.Helper()
	var count atomic.Int64
	stop := make(chan struct{})
	var workers sync.WaitGroup
	key := b.Key("worker")
	for range 4 {
		workers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := client.New(client.Config{Issuer: b.Issuer(), Auth: key}) // a fresh cache
				if err == nil {
					_, err = c.Token(t.Context(), client.TokenRequest{
						Tenant: credential.MustTenant("acme"), Audience: credential.MustAudience("orders"),
					})
					_ = c.Close()
				}
				if err != nil {
					t.Errorf("under load: %v", err)
					return
				}
				count.Add(1)
			}
		})
	}
	for count.Load() < 20 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	at := count.Load()
	f()
	for count.Load() < at+20 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	workers.Wait()
	return count.Load() - at
}

func readyOverSocket(t *testing.T, c broker.Config) (int, string) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Socket())
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://broker/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// checkChains exports the whole audit log and verifies it as somebody else
// would: the lost store's chains and those that go on from the backup.
func checkChains(t *testing.T, b *broker.Broker) {
	t.Helper()
	var export bytes.Buffer
	if err := b.Audit().Export(t.Context(), &export, credential.Tenant{}); err != nil {
		t.Fatal(err)
	}
	header, _, err := audit.VerifyExport(bytes.NewReader(export.Bytes()), nil)
	if header.Key == nil {
		t.Fatal(err)
	}
	_, report, err := audit.VerifyExport(&export, header.Key)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range report.Chains {
		names = append(names, c.String())
	}
	all := strings.Join(names, " ")
	for _, want := range []string{"@broker", "@broker-", "acme@broker", "acme@broker-"} {
		if !strings.Contains(all, want) {
			t.Errorf("no chain %s among %s", want, all)
		}
	}
	var types []string
	err = b.Store().View(t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			types = append(types, record.Type)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"broker.created", "broker.started", "broker.backup", "broker.restored", "revocation.everything"} {
		if !strings.Contains(strings.Join(types, " "), want) {
			t.Errorf("no record %s", want)
		}
	}
}

func TestBackupWhereNobodyServes(t *testing.T) {
	b := declared(t)
	b.Stop()
	folder := shortDir(t)
	to := filepath.Join(folder, "backup.db")
	taken := time.Now().Add(-time.Hour)
	hot, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), to, func() time.Time { return taken })
	if hot || err != nil {
		t.Fatalf("hot %v, %v", hot, err)
	}
	if _, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), to, time.Now); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a backup that is there: %v", err)
	}
	if left, _ := os.ReadDir(folder); len(left) != 1 {
		t.Errorf("left %v", left)
	}
	done, err := broker.Restore(t.Context(), broker.RestoreOptions{From: to, Config: elsewhere(t, b), Now: time.Now})
	if err != nil || !done.Taken.Equal(taken) {
		t.Errorf("restore: a backup of %s, taken %s: %v", done.Taken, taken, err)
	}
}

// Two restores of one backup go on in chains of different names.
func TestRestoresAreDifferentGenerations(t *testing.T) {
	b := declared(t)
	to := filepath.Join(shortDir(t), "backup.db")
	if _, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), to, time.Now); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	chains := map[string]bool{}
	for range 2 {
		c := elsewhere(t, b)
		if _, err := broker.Restore(t.Context(), broker.RestoreOptions{From: to, Config: c, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
		opened, err := broker.Open(t.Context(), c, broker.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		err = opened.Store().View(t.Context(), func(r store.Reader) error {
			for e, err := range r.Log(0) {
				if err != nil {
					return err
				}
				if e.Chain.Writer != "broker" {
					chains[e.Chain.Writer] = true
				}
			}
			return nil
		})
		if err = errors.Join(err, opened.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if len(chains) != 2 {
		t.Errorf("writers %v", chains)
	}
}

func TestRestoreRefuses(t *testing.T) {
	b := declared(t)
	good := filepath.Join(shortDir(t), "backup.db")
	if _, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), good, time.Now); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	damaged := func(damage func(path string)) string {
		path := filepath.Join(shortDir(t), "damaged.db")
		data, err := os.ReadFile(good)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		damage(path)
		return path
	}
	// What whoever holds the key-encryption key could do.
	inside := func(path string, change func(*bbolt.Tx) error) {
		err := broker.AlterBackup(t.Context(), config(t, b.ConfigFile()), path, func(store string) error {
			db, err := bbolt.Open(store, 0o600, nil)
			if err != nil {
				return err
			}
			return errors.Join(db.Update(change), db.Close())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	otherKEK := func(t *testing.T) broker.Config {
		c := elsewhere(t, b)
		other, err := broker.Init(t.Context(), initOptions(filepath.Join(shortDir(t), "data")))
		if err != nil {
			t.Fatal(err)
		}
		d := c.Document()
		d.KEKFile = other.KEK
		if c, err = d.Validate(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	other := otherKEK(t)
	for name, tc := range map[string]struct {
		from string
		to   func(*testing.T) broker.Config
		want string
	}{
		"a store that is there":   {good, func(t *testing.T) broker.Config { return config(t, b.ConfigFile()) }, "there already"},
		"a file that isn't there": {filepath.Join(t.TempDir(), "none"), nil, "no such file"},
		"half a file":             {damaged(func(path string) { _ = os.Truncate(path, 30_000) }), nil, "cut off"},
		"another program's file":  {damaged(func(path string) { _ = os.WriteFile(path, bytes.Repeat([]byte("x"), 50_000), 0o600) }), nil, "doesn't end in the seal"},
		"a newer schema": {damaged(func(path string) {
			inside(path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte("99")) })
		}), nil, "newer"},
		"an altered audit record": {damaged(func(path string) {
			inside(path, func(tx *bbolt.Tx) error {
				log := tx.Bucket([]byte("log"))
				key, value := log.Cursor().Seek([]byte{0, 0, 0, 0, 0, 0, 0, 3})
				return log.Put(key, bytes.Replace(value, []byte(`"decision":"allow"`), []byte(`"decision":"deny"`), 1))
			})
		}), nil, "audit"},
		"a missing audit record": {damaged(func(path string) {
			inside(path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("log")).Delete([]byte{0, 0, 0, 0, 0, 0, 0, 3}) })
		}), nil, "audit"},
		"a store of nobody": {damaged(func(path string) {
			inside(path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("t/broker")).Delete([]byte("identity")) })
		}), nil, "no broker's store"},
		"another key-encryption key": {good, otherKEK, "before a broker rekey"},
		"a seal of another key than the store's": {damaged(func(path string) {
			if err := broker.AlterBackup(t.Context(), other, path, func(string) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}), func(*testing.T) broker.Config { return other }, "audit key"},
		"damaged pages": {damaged(func(path string) {
			if err := broker.AlterBackup(t.Context(), config(t, b.ConfigFile()), path, func(store string) error {
				return overwrite(store, 2*os.Getpagesize()) // the first two say where the others are
			}); err != nil {
				t.Fatal(err)
			}
		}), nil, "damaged: 1 faults"},
		"missing pages": {damaged(func(path string) {
			if err := broker.AlterBackup(t.Context(), config(t, b.ConfigFile()), path, func(store string) error {
				return os.Truncate(store, 12_000)
			}); err != nil {
				t.Fatal(err)
			}
		}), nil, "damaged: 12000 bytes of "},
		"a copy of the store's file": {config(t, b.ConfigFile()).StorePath(), nil, "a plain copy of a store"},
		"a folder":                   {t.TempDir(), nil, "not a regular file"},
		"another issuer": {good, func(t *testing.T) broker.Config {
			d := elsewhere(t, b).Document()
			d.Issuer = "https://other.example.com"
			c, err := d.Validate()
			if err != nil {
				t.Fatal(err)
			}
			return c
		}, "another issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			to := elsewhere(t, b)
			if tc.to != nil {
				to = tc.to(t)
			}
			before, _ := os.ReadDir(to.DataDir())
			_, err := broker.Restore(t.Context(), broker.RestoreOptions{From: tc.from, Config: to, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if after, _ := os.ReadDir(to.DataDir()); len(after) != len(before) {
				t.Errorf("left %v", after)
			}
		})
	}
}

// A running broker goes on with its file even when that was moved away.
func TestRestoreRefusesWhileTheFolderIsServed(t *testing.T) {
	b := declared(t)
	c := config(t, b.ConfigFile())
	backup := filepath.Join(shortDir(t), "backup.db")
	if _, err := broker.Backup(t.Context(), c, backup, time.Now); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(c.StorePath(), c.StorePath()+".lost"); err != nil {
		t.Fatal(err)
	}
	o := broker.RestoreOptions{From: backup, Config: c, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
	if _, err := broker.Restore(t.Context(), o); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("restored under a serving broker: %v", err)
	}
	if _, err := os.Stat(c.StorePath()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store was left behind: %v", err)
	}
	b.Stop()
	if _, err := broker.Restore(t.Context(), o); err != nil {
		t.Errorf("once it has stopped: %v", err)
	}
}

// overwrite puts zeros over a file from an offset to its end.
func overwrite(path string, from int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	clear(data[from:])
	return os.WriteFile(path, data, 0o600)
}
