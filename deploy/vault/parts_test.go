package vault_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// part is what the broker does in Vault with the policies of one part: by the
// broker's own code where that stands by itself.
type part struct {
	name string
	play func(w *world, c *vault.Client, name, folder string) error
}

var parts = []part{
	{"session", playSession},
	{"signing", playSigning},
	{"kek", playKEK},
	{"kv", playKV},
	{"static", playStatic},
	{"lease-database", playLeaseDatabase},
	{"lease-kv", playLeaseKV},
}

func forbidden(err error) bool { return errors.Is(err, vault.ErrForbidden) }

// playSession: the token is looked at, renewed, and ended.
func playSession(w *world, c *vault.Client, _, _ string) error {
	if _, err := c.Read(w.Context(), "auth/token/lookup-self"); err != nil {
		return err
	}
	for _, path := range []string{"auth/token/renew-self", "auth/token/revoke-self"} {
		if _, err := c.Write(w.Context(), path, nil); err != nil {
			return err
		}
	}
	return nil
}

// playSigning makes two versions, signs with both, finds one again, and has the
// older one end.
func playSigning(w *world, c *vault.Client, name, _ string) error {
	ctx := w.Context()
	home, err := keys.NewTransit(ctx, keys.TransitConfig{Engine: func(mount string) keys.TransitEngine { return c.Transit(mount) }, Prefix: name})
	if err != nil {
		return err
	}
	defer home.Close()
	spent := keys.Spent{IDs: map[string]bool{}}
	for range 2 {
		made, err := home.Generate(ctx, credential.ES256, spent)
		if first, ok := errors.AsType[*keys.RecordFirst](err); ok { // the ring's part
			spent.Mark, spent.Asked = max(spent.Mark, first.Foreign), first.Asked
			made, err = home.Generate(ctx, credential.ES256, spent)
		}
		if err != nil {
			return err
		}
		spent.IDs[made.Public.ID()] = true
		key, err := home.Open(ctx, made)
		if err != nil {
			return err
		}
		if _, err := key.Sign(ctx, []byte("a token")); err != nil {
			return err
		}
		if _, err := home.Find(ctx, made.Public); err != nil {
			return err
		}
		spent.Mark = made.Number
		newest := map[string]bool{made.Public.ID(): true}
		if err := home.Limit(ctx, made.Series, made.Number, 0, newest, newest); err != nil {
			return err
		}
	}
	return nil
}

func playKEK(w *world, c *vault.Client, name, _ string) error {
	kek, err := keys.NewTransitKEK(c.Transit("transit"), "transit", name+"-kek")
	if err != nil {
		return err
	}
	sealed, err := kek.Seal(w.Context(), []byte("a key"), []byte("its purpose"))
	if err != nil {
		return err
	}
	_, err = kek.Open(w.Context(), sealed, []byte("its purpose"))
	return err
}

// playKV stages a value, publishes it over the last one, and retires that.
func playKV(w *world, c *vault.Client, _, folder string) error {
	var kv kinds.Store = c.KV("secret")
	ctx := w.Context()
	for _, path := range []string{folder + "/acme/mail", "shared/" + folder + "-smtp"} {
		before, err := kv.Get(ctx, path)
		if err != nil && !errors.Is(err, vault.ErrNotFound) {
			return err
		}
		if _, err := kv.Put(ctx, path+".next", map[string]any{"value": "new"}, 0); err != nil {
			return err
		}
		if _, err := kv.GetVersion(ctx, path+".next", 1); err != nil {
			return err
		}
		version, err := kv.Put(ctx, path, map[string]any{"value": "new"}, before.Version)
		if err != nil {
			return err
		}
		if version, err = kv.Put(ctx, path, map[string]any{"value": "newer"}, version); err != nil {
			return err
		}
		if _, err := kv.Metadata(ctx, path); err != nil {
			return err
		}
		if err := kv.Destroy(ctx, path, version-1); err != nil {
			return err
		}
		if err := kv.DeleteAll(ctx, path+".next"); err != nil {
			return err
		}
	}
	return nil
}

func playStatic(w *world, c *vault.Client, _, _ string) error {
	var db kinds.Database = c.Database("database")
	for _, role := range []string{"legacy-a", "legacy-b"} {
		if _, err := db.StaticRole(w.Context(), role); err != nil {
			return err
		}
		if err := db.RotateStaticRole(w.Context(), role); err != nil {
			return err
		}
		if _, err := db.StaticCredentials(w.Context(), role); err != nil {
			return err
		}
	}
	return nil
}

// playLeaseDatabase makes a user, renews it, finds it by its role, ends it.
func playLeaseDatabase(w *world, c *vault.Client, name, _ string) error {
	ctx, leases, role := w.Context(), lease.Through(c), "tb_"+name
	for range 2 { // made, and changed
		if err := leases.PutRole(ctx, "database", role, vault.Role{
			Database: "orders", DefaultTTL: time.Minute, MaxTTL: time.Hour,
			CreationStatements:   []string{"SELECT tenantbroker.create_user('{{name}}', '{{password}}', '{{expiration}}', 'acme', 'orders_app')"},
			RenewStatements:      []string{"SELECT tenantbroker.renew_user('{{name}}', '{{expiration}}')"},
			RevocationStatements: []string{"SELECT tenantbroker.drop_user('{{name}}')"},
		}); err != nil {
			return err
		}
	}
	user, err := leases.Credentials(ctx, "database", role)
	if err != nil {
		return err
	}
	if _, err := leases.Known(ctx, user.LeaseID); err != nil {
		return err
	}
	if _, err := leases.Renew(ctx, user.LeaseID, time.Minute); err != nil {
		return err
	}
	ids, err := leases.Leases(ctx, "database", role)
	if err != nil {
		return err
	}
	if len(ids) != 1 || ids[0] != user.LeaseID {
		return fmt.Errorf("the role's leases are %v", ids)
	}
	if err := leases.Revoke(ctx, user.LeaseID); err != nil {
		return err
	}
	if _, err := leases.Roles(ctx, "database"); err != nil {
		return err
	}
	return leases.DeleteRole(ctx, "database", role)
}

func playLeaseKV(w *world, c *vault.Client, _, folder string) error {
	w.root("POST", "secret/data/"+folder+"/acme/leased", map[string]any{"data": map[string]any{"k": "v"}})
	_, err := lease.Through(c).Value(w.Context(), "secret", folder+"/acme/leased")
	return err
}

// The parts are played whole: what the broker's packages can call of Vault is
// in their interfaces, and this list says that a play has it.
func TestEveryCallIsPlayed(t *testing.T) {
	for of, played := range map[reflect.Type][]string{
		reflect.TypeFor[keys.TransitEngine](): {"Create", "Key", "Rotate", "SetMinimums", "Sign"},
		reflect.TypeFor[keys.TransitSealer](): {"Decrypt", "Encrypt"},
		reflect.TypeFor[kinds.Store]():        {"DeleteAll", "Destroy", "Get", "GetVersion", "Metadata", "Put"},
		reflect.TypeFor[kinds.Database]():     {"RotateStaticRole", "StaticCredentials", "StaticRole"},
		reflect.TypeFor[lease.Vault](): {
			"Credentials", "DeleteRole", "Known", "Leases", "PutRole", "Renew", "Revoke", "Roles",
			"Session", // asks nobody
			"Value",
		},
	} {
		var all []string
		for m := range of.Methods() {
			all = append(all, m.Name)
		}
		if slices.Sort(all); !slices.Equal(all, played) {
			t.Errorf("%s has %v; played is %v", of, all, played)
		}
	}
}
