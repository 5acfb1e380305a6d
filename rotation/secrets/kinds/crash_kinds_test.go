package kinds_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func databasesOf(c *vault.Client) kinds.Databases {
	return func(_, mount string) kinds.Database { return c.Database(mount) }
}

func storesOf(c *vault.Client) kinds.Stores {
	return func(_, mount string) kinds.Store { return c.KV(mount) }
}

// crashSecret is a shared secret with one consumer.
func crashSecret(w *crashWorld, kind string, spec any) secrets.Secret {
	raw, err := json.Marshal(spec)
	w.must(err)
	return secrets.Secret{
		ID: w.name, Kind: kind, Spec: raw, Shared: true, Owner: credential.MustAccountID("app"),
		Consumers: []credential.AccountID{credential.MustAccountID("app")}, Overlap: secrets.Duration(secrets.MinOverlap),
	}
}

// publishedAt is what lies at the place of a secret.
func publishedAt(w *crashWorld) (data map[string]any, version uint64) {
	v, err := w.client.KV("secret").Get(w.Context(), "shared/"+w.name)
	w.must(err)
	text, _ := v.Data["tenantbroker_version"].(string)
	version, err = strconv.ParseUint(text, 10, 64)
	w.must(err)
	return v.Data, version
}

// oneVersionAt fails unless only the newest version has its data.
func oneVersionAt(w *crashWorld, version int) {
	m, err := w.client.KV("secret").Metadata(w.Context(), "shared/"+w.name)
	w.must(err)
	if m.CurrentVersion != version {
		w.Errorf("version %d was written, not %d", m.CurrentVersion, version)
	}
	for n, v := range m.Versions {
		if v.Destroyed != (n != m.CurrentVersion) {
			w.Errorf("version %d in Vault: destroyed %t", n, v.Destroyed)
		}
	}
}

type crashingPair struct{}

func (*crashingPair) kind(c *vault.Client, _ *registry.Registry) secrets.Kind {
	return kinds.NewStaticPair(databasesOf(c), storesOf(c), kinds.DefaultLayout())
}

func (*crashingPair) furnish(w *crashWorld) secrets.Secret {
	spec := map[string]any{
		"roles":    []map[string]string{{"role": w.name + "-a", "username": w.name + "_a"}, {"role": w.name + "-b", "username": w.name + "_b"}},
		"publish":  map[string]string{"path": "shared/" + w.name},
		"postgres": map[string]any{"host": parts.postgres.Host(), "port": parts.postgres.Port(), "database": "postgres", "sslmode": "disable"},
	}
	for _, end := range []string{"a", "b"} {
		w.must(parts.postgres.SQL(w.Context(), "postgres", fmt.Sprintf("CREATE ROLE %q LOGIN", w.name+"_"+end)))
		_, err := parts.vault.Do(w.Context(), http.MethodPut, "database/static-roles/"+w.name+"-"+end,
			map[string]any{"db_name": "pg", "username": w.name + "_" + end, "rotation_period": "87600h"})
		w.must(err)
	}
	return crashSecret(w, "database-static-pair", spec)
}

func (*crashingPair) given(w *crashWorld) (value any, version uint64) {
	data, version := publishedAt(w)
	user, _ := data["username"].(string)
	password, _ := data["password"].(string)
	return [2]string{user, password}, version
}

func (*crashingPair) valid(w *crashWorld, value any) bool {
	who, _ := value.([2]string)
	c, err := pgx.Connect(w.Context(), parts.postgres.DSN(who[0], who[1], "postgres"))
	if err != nil {
		return false
	}
	w.must(c.Close(context.WithoutCancel(w.Context())))
	return true
}

// settled: each rotation took one call of Vault for either end, whatever came between.
func (*crashingPair) settled(w *crashWorld, version, rotations int) {
	oneVersionAt(w, version)
	for _, end := range []string{"a", "b"} {
		if n := w.at("database/rotate-role/" + w.name + "-" + end); n != rotations {
			w.Errorf("static role %s was rotated %d times, not %d", end, n, rotations)
		}
	}
}

type crashingKV struct{}

func (*crashingKV) kind(c *vault.Client, _ *registry.Registry) secrets.Kind {
	return kinds.NewKV(storesOf(c), kinds.DefaultLayout())
}

func (*crashingKV) furnish(w *crashWorld) secrets.Secret {
	return crashSecret(w, "kv", map[string]string{"path": "shared/" + w.name})
}

func (*crashingKV) given(w *crashWorld) (value any, version uint64) {
	data, version := publishedAt(w)
	text, _ := data["value"].(string)
	return text, version
}

// valid: whoever has the value can find it in Vault, in some version.
func (*crashingKV) valid(w *crashWorld, value any) bool {
	kv := w.client.KV("secret")
	m, err := kv.Metadata(w.Context(), "shared/"+w.name)
	w.must(err)
	for n := range m.Versions {
		v, err := kv.GetVersion(w.Context(), "shared/"+w.name, n)
		if errors.Is(err, vault.ErrNotFound) {
			continue
		}
		w.must(err)
		if v.Data["value"] == value {
			return true
		}
	}
	return false
}

func (*crashingKV) settled(w *crashWorld, version, _ int) {
	oneVersionAt(w, version)
	nothingStaged(w)
}

// foundKV is a value that somebody put there by hand before it was declared.
type foundKV struct{ crashingKV }

func (c *foundKV) furnish(w *crashWorld) secrets.Secret {
	_, err := parts.vault.Do(w.Context(), http.MethodPost, "secret/data/shared/"+w.name, map[string]any{"data": map[string]any{"value": "by hand"}})
	w.must(err)
	return c.crashingKV.furnish(w)
}

func (*foundKV) given(w *crashWorld) (value any, version uint64) {
	v, err := w.client.KV("secret").Get(w.Context(), "shared/"+w.name)
	w.must(err)
	if text, is := v.Data["tenantbroker_version"].(string); is {
		version, err = strconv.ParseUint(text, 10, 64)
		w.must(err)
	}
	return v.Data["value"], version
}

// nothingStaged fails if something is left where values wait.
func nothingStaged(w *crashWorld) {
	if _, err := w.client.KV("secret").Metadata(w.Context(), "shared/"+w.name+".next"); !errors.Is(err, vault.ErrNotFound) {
		w.Errorf("something is left where values wait: %v", err)
	}
}

type crashingSecret struct{}

func (*crashingSecret) kind(c *vault.Client, r *registry.Registry) secrets.Kind {
	authenticate := func(ctx context.Context, id credential.AccountID, secret credential.Secret) error {
		return takes(ctx, r, id, secret)
	}
	return kinds.NewSecret(r, authenticate, storesOf(c), kinds.DefaultLayout(), time.Now)
}

// takes authenticates as the broker does.
func takes(ctx context.Context, r *registry.Registry, id credential.AccountID, secret credential.Secret) error {
	return r.View(ctx, admin, func(reader store.Reader) error {
		account, _, err := r.AccountAt(reader, id)
		if err != nil {
			return err
		}
		if _, ok := account.MatchSecret(secret, time.Now()); !ok {
			return errors.New("not a client secret of the account")
		}
		return nil
	})
}

func (*crashingSecret) furnish(w *crashWorld) secrets.Secret {
	s := crashSecret(w, "client-secret", map[string]string{"account": "app", "path": "shared/" + w.name})
	s.MaxAge = secrets.Duration(30 * 24 * time.Hour)
	return s
}

func (*crashingSecret) given(w *crashWorld) (value any, version uint64) {
	data, version := publishedAt(w)
	text, _ := data["client_secret"].(string)
	return text, version
}

func (*crashingSecret) valid(w *crashWorld, value any) (yes bool) {
	text, _ := value.(string)
	w.reading(func(r *registry.Registry) {
		yes = takes(w.Context(), r, credential.MustAccountID("app"), credential.NewSecret([]byte(text))) == nil
	})
	return yes
}

// reading opens the store between two processes.
func (w *crashWorld) reading(do func(*registry.Registry)) {
	st, err := bolt.Open(w.Context(), bolt.Options{Path: w.path, Writer: "test"})
	w.must(err)
	do(registry.New(st, credential.MustIssuerURL("https://broker.example"), time.Now))
	w.must(st.Close())
}

func (*crashingSecret) settled(w *crashWorld, version, _ int) {
	oneVersionAt(w, version)
	nothingStaged(w)
	w.reading(func(r *registry.Registry) {
		have, err := r.RotatedSecrets(w.Context(), credential.MustAccountID("app"))
		w.must(err)
		if len(have) != 1 {
			w.Errorf("%d client secrets are left, not one", len(have))
		}
	})
}

// crashingHook has its rotator in the test's own process, which nobody kills.
type crashingHook struct{ rotators sync.Map }

func (*crashingHook) kind(*vault.Client, *registry.Registry) secrets.Kind {
	token := func(context.Context, registry.Rotated, credential.AccountID, credential.Audience, credential.Tenant) (credential.Secret, error) {
		return credential.NewSecret([]byte(hookToken)), nil
	}
	return kinds.NewWebhook(loopbackOnly, token)
}

func (c *crashingHook) furnish(w *crashWorld) secrets.Secret {
	r := newRotator(w.T)
	c.rotators.Store(w.name, r)
	return crashSecret(w, "webhook", map[string]string{"url": r.server.URL + "/rotate", "audience": "rotator", "tenant": "acme"})
}

func (c *crashingHook) rotator(w *crashWorld) *rotator {
	found, _ := c.rotators.Load(w.name)
	r, ok := found.(*rotator)
	if !ok {
		w.Fatal("no rotator for " + w.name)
	}
	return r
}

func (c *crashingHook) given(w *crashWorld) (value any, version uint64) {
	return c.rotator(w).given()
}

func (c *crashingHook) valid(w *crashWorld, value any) bool { return c.rotator(w).works(value) }

func (c *crashingHook) settled(w *crashWorld, version, _ int) {
	r := c.rotator(w)
	if good := r.good(); len(good) != 1 || good[0] != uint64(version) {
		w.Errorf("the versions %v are good, not only %d", good, version)
	}
	if n := r.twice(); n > 0 {
		w.Errorf("%d steps were carried out twice", n)
	}
}
