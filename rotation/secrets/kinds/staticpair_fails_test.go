package kinds_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// says waits for an error of the step, and holds it to words.
func (w *pairWorld) says(step secrets.Step, words ...string) {
	w.Helper()
	st := w.until("an error in "+string(step), func(st secrets.Status) bool {
		return st.Attempt != nil && st.Attempt.Step == step && st.Attempt.Error != ""
	})
	for _, word := range words {
		if !strings.Contains(st.Attempt.Error, word) {
			w.Errorf("%q doesn't say %q", st.Attempt.Error, word)
		}
	}
}

// A user that is dropped after the rotation began: Vault answers 500, and tries
// again by itself for ever. The error says so; it is no Vault that is away.
func TestARoleThatFailsAtTheDatabase(t *testing.T) {
	w := newPair(t)
	w.run()
	w.rotate(1)
	former := w.wants("b", 1)
	drop := func(which string) func() {
		return func() { w.sql(fmt.Sprintf("DROP ROLE %q", w.user(which))) }
	}
	restore := func(which string) { w.sql(fmt.Sprintf("CREATE ROLE %q LOGIN", w.user(which))) }

	w.at(secrets.Apply, "rotate", "before", drop("a"))
	w.ask(false)
	w.says(secrets.Apply, "the database has no user "+w.user("a"), "SQLSTATE 42704", "vault goes on trying by itself")
	if tries := w.status().Attempt.Tries; tries == 0 {
		t.Error("it doesn't count as a try, so it would go on for ever")
	}
	w.wants("b", 1)
	restore("a")
	w.until("drain", draining(2))
	w.wants("a", 2)

	w.at(secrets.Retire, "rotate", "before", drop("b"))
	w.ack(2)
	w.says(secrets.Retire, "the database has no user "+w.user("b"))
	w.wants("a", 2)
	restore("b")
	w.until("rotated", rotated(2))
	w.wants("a", 2)
	if w.may(former) {
		t.Error("the former password came back")
	}
}

// Vault's own second try, some seconds later, changes the password of a rotation
// that failed. Looking finds that, and the rotation takes what Vault has then.
func TestVaultTriesAgainByItself(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	stop := w.run()
	w.rotate(1)
	before := w.inVault("a")
	w.at(secrets.Apply, "rotate", "before", func() { w.sql(fmt.Sprintf("DROP ROLE %q", w.user("a"))) })
	w.ask(false)
	w.says(secrets.Apply, "SQLSTATE 42704")
	stop()
	w.sql(fmt.Sprintf("CREATE ROLE %q LOGIN", w.user("a")))
	for w.inVault("a").password.Equal(before.password) {
		select {
		case <-t.Context().Done():
			t.Fatal("Vault doesn't try again")
		case <-time.After(100 * time.Millisecond):
		}
	}
	byVault := w.inVault("a")
	w.run()
	w.until("drain", draining(2))
	if !w.wants("a", 2).password.Equal(byVault.password) {
		t.Error("the password was changed once more")
	}
}

// A role whose rotation Vault takes for done, while the database has the old
// password: only a login shows it.
func TestARotationThatDoesNothing(t *testing.T) {
	w := newPair(t)
	stop := w.run()
	w.rotate(1)
	nothing := map[string]any{"rotation_period": "87600h", "rotation_statements": []string{"SELECT 1"}}
	w.makeRole(w.spec().Roles[0], nothing)
	w.ask(false)
	w.says(secrets.Prove, "the login is refused", "is not the one in the database")
	w.wants("b", 1)
	w.makeRole(w.spec().Roles[0], map[string]any{"rotation_period": "87600h", "rotation_statements": []string{}})
	w.until("given up", func(st secrets.Status) bool { return st.Attempt == nil && st.Last.Failed != "" })
	w.ask(true)
	st := w.until("drain", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Step == secrets.Drain })
	version := st.Attempt.New.Version
	w.wants("a", version)

	w.makeRole(w.spec().Roles[1], nothing)
	w.ack(version)
	w.says(secrets.Retire, "may still be valid", "rotation_statements")
	w.makeRole(w.spec().Roles[1], map[string]any{"rotation_period": "87600h", "rotation_statements": []string{}})
	w.until("rotated", rotated(version))
	w.wants("a", version)
	stop()
	w.holdsNoPassword()
}

// Whoever has put back what consumers had before is not cut off.
func TestTheFormerLoginThatIsBackIsNotRetired(t *testing.T) {
	w := newPair(t)
	w.run()
	w.rotate(1)
	former := w.wants("b", 1)
	w.ask(false)
	w.until("drain", draining(2))
	_, err := w.client.KV("secret").Put(t.Context(), "shared/"+w.name, map[string]any{
		"username": former.user, "password": string(former.password.Reveal()), "tenantbroker_version": "1",
	}, 2)
	w.must(err)
	w.ack(2)
	st := w.until("held", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Held })
	if st.Attempt.Step != secrets.Retire || !strings.Contains(st.Drift, "is not the broker's") {
		t.Errorf("%s: %s", st.Attempt.Step, st.Drift)
	}
	if !w.may(former) {
		t.Error("the former login ended")
	}
}

// What consumers have is valid no more when the last of them is seen on it: the
// former login is all that is left, and it doesn't end.
func TestTheFormerLoginStaysWithoutTheNew(t *testing.T) {
	w := newPair(t)
	w.run()
	w.rotate(1)
	former := w.wants("b", 1)
	w.ask(false)
	w.until("drain", draining(2))
	w.sql(fmt.Sprintf("ALTER ROLE %q PASSWORD 'by hand'", w.user("a")))
	w.ack(2)
	st := w.until("held", func(st secrets.Status) bool { return st.Attempt == nil || st.Attempt.Held })
	if st.Attempt == nil || st.Attempt.Step != secrets.Retire || !strings.Contains(st.Drift, "valid no more") {
		t.Fatalf("%+v: %s", st.Attempt, st.Drift)
	}
	if !w.may(former) {
		t.Error("the former login ended")
	}
}

// Answers that are lost, before and after Vault has done it, at every write of
// a rotation. Nothing is done twice.
func TestAnswersOfVaultThatAreLost(t *testing.T) {
	if parts.once.Do(startParts); parts.err != nil {
		t.Fatal(parts.err)
	}
	proxy := devvault.ProxyForTest(t, parts.vault)
	writes := map[string]func(w *pairWorld) string{
		"apply":   func(w *pairWorld) string { return "database/rotate-role/" + w.name + "-a" },
		"promote": func(w *pairWorld) string { return "secret/data/shared/" + w.name },
		"retire":  func(w *pairWorld) string { return "database/rotate-role/" + w.name + "-b" },
		"destroy": func(w *pairWorld) string { return "secret/destroy/shared/" + w.name },
	}
	faults := map[string]devvault.Fault{
		"500 after effect":     {Effect: true, Status: http.StatusInternalServerError},
		"cut off after effect": {Effect: true, Cut: true},
		"500 before":           {Status: http.StatusInternalServerError},
	}
	for write, path := range writes {
		for name, fault := range faults {
			t.Run(write+", "+name, func(t *testing.T) {
				w := newPairOn(t, parts.vault, parts.postgres, proxy.URL())
				w.run()
				w.rotate(1)
				former := w.wants("b", 1)
				at := path(w)
				fault.Times = 1
				fault.Match = func(method, p string) bool { return method == http.MethodPut && p == at }
				defer proxy.Break(fault)()
				before := proxy.Calls(fault.Match)
				w.ask(false)
				w.until("drain", draining(2))
				w.wants("a", 2)
				if !w.may(former) {
					t.Error("the former login ended too soon")
				}
				w.ack(2)
				w.until("rotated", rotated(2))
				w.wants("a", 2)
				if w.may(former) {
					t.Error("the former login is still valid")
				}
				want := 1
				if !fault.Effect {
					want = 2
				}
				if calls := proxy.Calls(fault.Match) - before; calls != want {
					t.Errorf("%d calls, not %d", calls, want)
				}
			})
		}
	}
}

// Vault killed while it rotates the idle role: before the database has the new
// password, and after, but before Vault has noted it. Consumers' login works
// all along, and the rotation ends well.
func TestVaultKilledWhileItRotates(t *testing.T) {
	t.Parallel()
	v := devvault.ForTest(t, devvault.Options{})
	pg := devpostgres.ForTest(t, devpostgres.Options{})
	if err := connect(t.Context(), v, pg); err != nil {
		t.Fatal(err)
	}
	if err := v.Mount(t.Context(), "kv", "secret", map[string]string{"version": "2"}); err != nil {
		t.Fatal(err)
	}
	const change = `ALTER ROLE "{{name}}" PASSWORD '{{password}}'`
	const wait = "SELECT pg_advisory_xact_lock(42)"
	for name, statements := range map[string][]string{
		"before the database has it":                {wait, change},
		"after the database has it, and not stored": {change, "COMMIT", wait},
	} {
		t.Run(name, func(t *testing.T) {
			w := newPairOn(t, v, pg, v.URL())
			w.run()
			w.rotate(1)
			w.wants("b", 1)
			w.makeRole(w.spec().Roles[0], map[string]any{"rotation_period": "87600h", "rotation_statements": statements})
			release := w.hold(42)
			killed := make(chan struct{})
			w.at(secrets.Apply, "rotate", "before", func() {
				go func() {
					defer close(killed)
					w.awaitLock()
					v.Kill()
				}()
			})
			w.ask(false)
			<-killed
			release()
			w.must(v.Restart(t.Context()))
			w.until("drain", draining(2))
			w.wants("a", 2)
			w.ack(2)
			w.until("rotated", rotated(2))
			w.wants("a", 2)
			if st := w.status(); st.Drift != "" || st.Problem != "" {
				t.Errorf("drift %q, problem %q", st.Drift, st.Problem)
			}
		})
	}
}

// A database that is slower than the broker's patience: what comes of the call
// that was given up, and of the one after it, is one password.
func TestADatabaseThatIsTooSlow(t *testing.T) {
	w := newPair(t)
	stop := w.run()
	w.rotate(1)
	w.wants("b", 1)
	stop()
	patient := w.client
	w.client = w.connected(vault.Config{Timeout: 2 * time.Second}) // enough for all else
	w.makeRole(w.spec().Roles[0], map[string]any{"rotation_period": "87600h", "rotation_statements": []string{
		"SELECT pg_advisory_xact_lock(43)", `ALTER ROLE "{{name}}" PASSWORD '{{password}}'`,
	}})
	release := w.hold(43)
	stop = w.run()
	w.ask(false)
	w.until("given up by the client", func(st secrets.Status) bool {
		return st.Attempt != nil && st.Attempt.Step == secrets.Apply && strings.Contains(st.Attempt.Error, "may have taken effect")
	})
	w.wants("b", 1)
	release()
	w.until("drain", draining(2))
	w.wants("a", 2)
	stop()
	w.client = patient
	w.run()
	w.ack(2)
	w.until("rotated", rotated(2))
	w.wants("a", 2)
}

// hold takes an advisory lock, for which the next rotation in Vault waits.
func (w *pairWorld) hold(key int) (release func()) {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.postgres.SuperDSN())
	w.must(err)
	_, err = c.Exec(w.Context(), "SELECT pg_advisory_lock($1)", key)
	w.must(err)
	release = sync.OnceFunc(func() { _ = c.Close(context.WithoutCancel(w.Context())) })
	w.Cleanup(release)
	return release
}

// awaitLock waits until somebody waits for the lock.
func (w *pairWorld) awaitLock() {
	c, err := pgx.Connect(w.Context(), w.postgres.SuperDSN())
	if err != nil {
		w.Error(err)
		return
	}
	defer func() { _ = c.Close(context.WithoutCancel(w.Context())) }()
	for waiting := 0; waiting == 0; {
		if err := c.QueryRow(w.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").Scan(&waiting); err != nil {
			w.Error(err)
			return
		}
	}
}

// Vault's storage rolled back to before the last rotation: what is published is
// the login that ended. It is found, and a forced rotation ends it.
func TestVaultRolledBack(t *testing.T) {
	t.Parallel()
	v := devvault.ForTest(t, devvault.Options{})
	pg := devpostgres.ForTest(t, devpostgres.Options{})
	if err := connect(t.Context(), v, pg); err != nil {
		t.Fatal(err)
	}
	if err := v.Mount(t.Context(), "kv", "secret", map[string]string{"version": "2"}); err != nil {
		t.Fatal(err)
	}
	w := newPairOn(t, v, pg, v.URL())
	w.run()
	w.rotate(1)
	w.rotate(2)
	before, err := v.CopyStorage()
	w.must(err)
	w.rotate(3)
	w.wants("b", 3)
	w.must(v.RollBack(t.Context(), before))
	w.until("drift", drifted)
	w.ask(true)
	st := w.until("drain", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Step == secrets.Drain })
	w.wants("b", st.Attempt.New.Version)
	w.ack(st.Attempt.New.Version)
	w.until("rotated", rotated(st.Attempt.New.Version))
	w.wants("b", st.Attempt.New.Version)
}
