package kinds_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// One after the other; the former login works until every consumer was seen on
// the new one, and then no more.
func TestPairsAlternate(t *testing.T) {
	w := newPair(t)
	stop := w.run()
	var before login
	for version := uint64(1); version <= 4; version++ {
		which := map[uint64]string{0: "a", 1: "b"}[version%2]
		w.ask(false)
		w.until("drain", draining(version))
		now := w.wants(which, version)
		if version > 1 && !w.may(before) {
			t.Errorf("%s ended while consumers had it", before.user)
		}
		w.ack(version)
		w.until("rotated", rotated(version))
		if version > 1 && w.may(before) {
			t.Errorf("the former password of %s is still valid", before.user)
		}
		before = w.wants(which, version)
		if !before.password.Equal(now.password) {
			t.Error("the password of the one in use was changed")
		}
	}
	m, err := w.client.KV("secret").Metadata(t.Context(), "shared/"+w.name)
	w.must(err)
	for n, v := range m.Versions {
		if v.Destroyed != (n != m.CurrentVersion) {
			t.Errorf("version %d in Vault: destroyed %t", n, v.Destroyed)
		}
	}
	stop()
	w.holdsNoPassword()
}

// holdsNoPassword fails where a password of the pair is in state, status, audit
// or log.
func (w *pairWorld) holdsNoPassword() {
	w.Helper()
	status, err := json.Marshal(w.status())
	w.must(err)
	all := string(status) + w.said.String() + w.stored()
	for _, l := range []login{w.inVault("a"), w.inVault("b"), w.published()} {
		if strings.Contains(all, string(l.password.Reveal())) {
			w.Errorf("a password of %s is where it must not be", l.user)
		}
	}
}

func TestAPairBeginsWithWhatIsPublished(t *testing.T) {
	w := newPair(t)
	inUse := w.inVault("b") // the second one, against the order of the spec
	_, err := w.client.KV("secret").Put(t.Context(), "shared/"+w.name, map[string]any{
		"username": inUse.user, "password": string(inUse.password.Reveal()), "note": "kept",
	}, 0)
	w.must(err)
	w.run()
	w.ask(false)
	w.until("drain", draining(2))
	w.wants("a", 2)
	if !w.may(inUse) {
		t.Error("the login in use ended before its consumers were seen on the other")
	}
	w.ack(2)
	w.until("rotated", rotated(2))
	if w.may(inUse) {
		t.Error("the former login is still valid")
	}
	v, err := w.client.KV("secret").Get(t.Context(), "shared/"+w.name)
	w.must(err)
	if v.Data["note"] != "kept" {
		t.Error("a field that isn't the broker's was lost")
	}
}

// What others change, and what is told of it.
func TestDriftOfAPair(t *testing.T) {
	cases := []struct {
		name   string
		change func(w *pairWorld)
		says   []string
		forced string // whose login consumers have after a forced rotation
	}{
		{
			"the role in use rotated in Vault", func(w *pairWorld) {
				w.root(http.MethodPut, "database/rotate-role/"+w.name+"-b", nil)
			}, []string{"valid no more", "was rotated in Vault", "--force"}, "a",
		},
		{
			"the password in use changed in the database", func(w *pairWorld) {
				w.sql(fmt.Sprintf("ALTER ROLE %q PASSWORD 'by hand'", w.user("b")))
			}, []string{"valid no more", "changed in the database, not by Vault", "--force"}, "a",
		},
		{
			"the user in use dropped", func(w *pairWorld) { w.sql(fmt.Sprintf("DROP ROLE %q", w.user("b"))) },
			[]string{"valid no more", "or the user is gone", "--force"}, "",
		},
		{
			"the password of the idle one changed in the database", func(w *pairWorld) {
				w.sql(fmt.Sprintf("ALTER ROLE %q PASSWORD 'by hand'", w.user("a")))
			}, []string{"the idle user", "changed in the database, not by Vault", "--force"}, "a",
		},
		{
			"another value published", func(w *pairWorld) {
				_, err := w.client.KV("secret").Put(w.Context(), "shared/"+w.name, map[string]any{"username": "x", "password": "y"}, 1)
				w.must(err)
			}, []string{"is not the broker's"}, "a",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newPair(t)
			w.run()
			w.rotate(1)
			w.wants("b", 1)
			c.change(w)
			st := w.until("drift", drifted)
			for _, words := range c.says {
				if !strings.Contains(st.Drift, words) {
					t.Errorf("%q doesn't say %q", st.Drift, words)
				}
			}
			if c.forced == "" {
				return
			}
			w.ask(true)
			st = w.until("drain", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Step == secrets.Drain })
			w.wants(c.forced, st.Attempt.New.Version)
			w.ack(st.Attempt.New.Version)
			w.until("rotated", rotated(st.Attempt.New.Version))
			if st = w.status(); st.Drift != "" {
				t.Errorf("after a forced rotation: %s", st.Drift)
			}
		})
	}
}

// What makes a rotation impossible is said with what to do; nothing begins, not
// even by force, and when it is put right the rotation goes on.
func TestRolesThatCanNotBeRotatedAreRefused(t *testing.T) {
	cases := []struct {
		name       string
		spoil, fix func(w *pairWorld)
		says       []string
	}{
		{
			"a timer of Vault's own", func(w *pairWorld) { w.makeRole(w.spec().Roles[0], map[string]any{"rotation_period": "87599h"}) },
			func(w *pairWorld) { w.makeRole(w.spec().Roles[0], map[string]any{"rotation_period": "87600h"}) },
			[]string{"by itself, every 87599h", "vault write database/static-roles/", "rotation_period=87600h"},
		},
		{
			"a schedule of Vault's own", func(w *pairWorld) {
				w.makeRole(w.spec().Roles[1], map[string]any{"rotation_schedule": "0 0 1 1 *"})
			},
			func(w *pairWorld) { w.makeRole(w.spec().Roles[1], map[string]any{"rotation_period": "87600h"}) },
			[]string{`by the schedule "0 0 1 1 *"`, "rotation_period=87600h"},
		},
		{
			"no such role", func(w *pairWorld) { w.root(http.MethodDelete, "database/static-roles/"+w.name+"-b", nil) },
			func(w *pairWorld) { w.makeRole(w.spec().Roles[1], map[string]any{"rotation_period": "87600h"}) },
			[]string{"vault has no static role database/", "vault write database/static-roles/", "username="},
		},
		{
			"not among the allowed roles", func(w *pairWorld) {
				w.connection("none")
				for _, r := range w.spec().Roles {
					w.makeRole(r, map[string]any{"db_name": w.name, "rotation_period": "87600h"})
				}
			},
			func(w *pairWorld) { w.connection("*") },
			[]string{"is not among the allowed_roles", "vault write database/config/"},
		},
		{
			"two databases", func(w *pairWorld) {
				w.connection("*")
				w.makeRole(w.spec().Roles[1], map[string]any{"db_name": w.name, "rotation_period": "87600h"})
			},
			func(w *pairWorld) { w.makeRole(w.spec().Roles[1], map[string]any{"rotation_period": "87600h"}) },
			[]string{"are for one database"},
		},
		{
			"a role for another user", func(w *pairWorld) {
				w.sql(fmt.Sprintf("CREATE ROLE %q LOGIN", w.name+"_c"))
				w.root(http.MethodDelete, "database/static-roles/"+w.name+"-b", nil)
				w.makeRole(kinds.PairRole{Role: w.name + "-b", Username: w.name + "_c"}, map[string]any{"rotation_period": "87600h"})
			},
			func(w *pairWorld) {
				w.root(http.MethodDelete, "database/static-roles/"+w.name+"-b", nil)
				w.makeRole(w.spec().Roles[1], map[string]any{"rotation_period": "87600h"})
			},
			[]string{"_c\", and the spec says"},
		},
		{
			"the idle user is gone", func(w *pairWorld) { w.sql(fmt.Sprintf("DROP ROLE %q", w.user("b"))) },
			func(w *pairWorld) {
				w.sql(fmt.Sprintf("CREATE ROLE %q LOGIN", w.user("b")))
				w.root(http.MethodPut, "database/rotate-role/"+w.name+"-b", nil)
			},
			[]string{"the database has no user", "make it again", "vault write -f database/rotate-role/"},
		},
		{
			"the idle user may not log in", func(w *pairWorld) { w.sql(fmt.Sprintf("ALTER ROLE %q NOLOGIN", w.user("b"))) },
			func(w *pairWorld) { w.sql(fmt.Sprintf("ALTER ROLE %q LOGIN", w.user("b"))) },
			[]string{"may not log in", "ALTER ROLE"},
		},
		{
			"the idle user has ended", func(w *pairWorld) { w.sql(fmt.Sprintf("ALTER ROLE %q VALID UNTIL '2020-01-01'", w.user("b"))) },
			func(w *pairWorld) { w.sql(fmt.Sprintf("ALTER ROLE %q VALID UNTIL 'infinity'", w.user("b"))) },
			[]string{"has ended", "VALID UNTIL 'infinity'"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newPair(t)
			c.spoil(w)
			w.run()
			w.until("told without a rotation", func(st secrets.Status) bool { return st.Problem != "" })
			w.ask(true)
			st := w.until("refused", func(st secrets.Status) bool { return st.Problem != "" })
			for _, words := range c.says {
				if !strings.Contains(st.Problem, words) {
					t.Errorf("%q doesn't say %q", st.Problem, words)
				}
			}
			if st.Attempt != nil {
				t.Error("a rotation began")
			}
			c.fix(w)
			w.until("drain", draining(1))
			w.wants("b", 1)
			w.ack(1)
			w.until("rotated", rotated(1))
		})
	}
}

// What a login alone doesn't show: the new user lacks a right that the other has.
func TestAQueryProvesTheRightsOfTheNewUser(t *testing.T) {
	w := newPair(t)
	table := strings.ReplaceAll(w.name, "-", "_")
	w.sql("CREATE TABLE "+table+" (id int)", fmt.Sprintf("GRANT SELECT ON %s TO %q", table, w.user("a")))
	w.change(func(s *secrets.Secret) {
		spec := w.spec()
		spec.Query = "SELECT 1 FROM " + table
		s.Spec, _ = json.Marshal(spec)
	})
	w.run()
	w.ask(false)
	st := w.until("an error", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Error != "" })
	if st.Attempt.Step != secrets.Prove || !strings.Contains(st.Attempt.Error, "insufficient privilege (SQLSTATE 42501)") {
		t.Errorf("%s: %s", st.Attempt.Step, st.Attempt.Error)
	}
	w.sql(fmt.Sprintf("GRANT SELECT ON %s TO %q", table, w.user("b")))
	w.until("drain", draining(1))
	w.wants("b", 1)
}

// A statement that would write, or end the transaction that can't, does not.
func TestTheQueryOfAPairDoesNotWrite(t *testing.T) {
	w := newPair(t)
	table := strings.ReplaceAll(w.name, "-", "_")
	w.sql("CREATE TABLE "+table+" (id int)", fmt.Sprintf("GRANT ALL ON %s TO %q", table, w.user("b")))
	for _, query := range []string{"INSERT INTO " + table + " VALUES (1)", "COMMIT; INSERT INTO " + table + " VALUES (1)"} {
		w.change(func(s *secrets.Secret) {
			spec := w.spec()
			spec.Query = query
			s.Spec, _ = json.Marshal(spec)
		})
		stop := w.run()
		w.ask(false)
		w.until("given up", func(st secrets.Status) bool { return st.Last != nil && st.Last.Failed != "" && st.Attempt == nil })
		stop()
	}
	if n := w.count(table); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

// The proof is of the password that is published: one that Vault has changed in
// between is not.
func TestWhatIsPublishedWasProven(t *testing.T) {
	w := newPair(t)
	w.run()
	w.rotate(1)
	k := w.kind()
	work := &secrets.Work{Secret: w.secret(), Step: secrets.Prove, Nonce: "n", Old: secrets.Slot{Version: 1, Handle: secrets.Handle{"role": w.name + "-b", "kv_version": "1"}}}
	handle, err := k.Do(t.Context(), work)
	w.must(err)
	w.root(http.MethodPut, "database/rotate-role/"+w.name+"-a", nil)
	work.Step, work.New = secrets.Promote, secrets.Slot{Version: 2, Nonce: "n", Handle: handle}
	if _, err := k.Do(t.Context(), work); err == nil || !strings.Contains(err.Error(), "after its password was proven") {
		t.Errorf("%v", err)
	}
	w.wants("b", 1)
}

// Nothing of a pair can be in a second secret.
func TestARoleIsOfOnePair(t *testing.T) {
	w := newPair(t)
	mine := w.spec()
	for name, edit := range map[string]func(*kinds.StaticPairSpec){
		"a role":      func(s *kinds.StaticPairSpec) { s.Roles[1].Role = mine.Roles[0].Role },
		"a user":      func(s *kinds.StaticPairSpec) { s.Roles[0].Username = mine.Roles[1].Username },
		"the path":    func(s *kinds.StaticPairSpec) { s.Publish = mine.Publish },
		"nothing yet": func(*kinds.StaticPairSpec) {},
	} {
		other := mine
		other.Roles = [2]kinds.PairRole{{Role: w.name + "-x", Username: w.name + "_x"}, {Role: w.name + "-y", Username: w.name + "_y"}}
		other.Publish.Path = "shared/other-" + w.name
		edit(&other)
		secret := w.secret()
		secret.ID = fmt.Sprintf("other-%d", parts.count.Add(1))
		raw, err := json.Marshal(other)
		w.must(err)
		secret.Spec = raw
		_, err = w.m.Create(t.Context(), admin, secret)
		if name == "nothing yet" && err != nil || name != "nothing yet" && !errors.Is(err, registry.ErrExists) {
			t.Errorf("%s in a second secret: %v", name, err)
		}
		if err == nil {
			w.must(w.m.Delete(t.Context(), admin, secret.ID, 0))
		}
	}
	byTenant := admin
	byTenant.Tenant = credential.MustTenant("acme")
	secret := w.secret()
	secret.ID, secret.Shared, secret.Tenant = "of-acme", false, byTenant.Tenant
	if _, err := w.m.Create(t.Context(), byTenant, secret); !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("declared by an operator of a tenant: %v", err)
	}
}

// A policy that lacks a path is said, with the path; nothing was done.
func TestAPolicyThatIsTooNarrow(t *testing.T) {
	w := newPair(t)
	w.root(http.MethodPut, "sys/policies/acl/"+w.name, map[string]any{"policy": `
		path "database/static-roles/*" { capabilities = ["read"] }
		path "database/static-creds/*" { capabilities = ["read"] }
		path "secret/*" { capabilities = ["read", "create", "update", "delete", "list"] }`})
	made := w.root(http.MethodPut, "auth/token/create", map[string]any{"policies": []string{w.name}})
	auth, _ := made["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	asRoot := w.client
	w.client = w.connected(vault.Config{Login: vault.Token{Secret: credential.NewSecret([]byte(token))}})
	stop := w.run()
	w.ask(false)
	w.says(secrets.Apply, "the broker's policy in Vault needs", "update on rotate-role/"+w.name+"-b")
	stop()
	w.client = asRoot
	w.run()
	w.until("drain", draining(1))
	w.wants("b", 1)
}
