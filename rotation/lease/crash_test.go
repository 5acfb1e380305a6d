package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// childEnv makes the test binary a process that does one thing to a lease and
// is killed in the middle of it.
const childEnv = "TENANTBROKER_LEASE_CHILD"

type childTask struct {
	Store, Vault, Token, Issuer string
	Database                    string
	Offset                      time.Duration
	Do                          string // obtain, renew, release, pass
	Of, Lease                   string
	Claims                      []byte // of the holder
	Stage                       string // where it is killed
	Times                       int    // how often the stage is passed before
}

func childMain(task string) int {
	var c childTask
	if err := json.Unmarshal([]byte(task), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := c.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	return 0
}

func (c *childTask) run(ctx context.Context) error {
	now := func() time.Time { return time.Now().Add(c.Offset) }
	st, err := bolt.Open(ctx, bolt.Options{Path: c.Store, Writer: "test"})
	if err != nil {
		return err
	}
	issuer := credential.MustIssuerURL(c.Issuer)
	client, err := vault.New(vault.Config{Address: c.Vault, Login: vault.Token{Secret: credential.NewSecret([]byte(c.Token))}})
	if err != nil {
		return err
	}
	if err := client.Login(ctx); err != nil {
		return err
	}
	targets, err := NewTargets(targetsOf(c.Database))
	if err != nil {
		return err
	}
	m, err := New(Config{
		Store: st, Registry: registry.New(st, issuer, now), Issuer: issuer, Vault: Through(client), Targets: targets, Now: now,
	})
	if err != nil {
		return err
	}
	passed := 0
	m.stage = func(stage string) {
		if stage != c.Stage {
			return
		}
		if passed++; passed > c.Times {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	var h Holder
	if c.Claims != nil {
		if h.Claims, err = credential.ParseClaims(c.Claims); err != nil {
			return err
		}
	}
	switch c.Do {
	case "obtain":
		_, err = m.Obtain(ctx, h, Request{Of: of(c.Of)})
	case "renew":
		_, err = m.Renew(ctx, h, c.Lease, 5*time.Minute)
	case "release":
		err = m.Release(ctx, h, c.Lease)
	case "pass":
		err = errors.Join(m.decide(ctx, &watch{}), work(ctx, m, &reconciling{}))
	}
	return errors.Join(err, st.Close())
}

// crash runs a process that is killed at a stage; the store is closed
// meanwhile.
func (w *world) crash(c childTask, h Holder) {
	w.Helper()
	cmd := w.child(c, h)
	var out bytes.Buffer
	cmd.Stderr = &out
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL { //nolint:errcheck // as Linux has it
		w.Fatalf("%s was not killed at %q: %v, %s", c.Do, c.Stage, err, out.String())
	}
	w.reopen()
}

// child closes the store and makes the process.
func (w *world) child(c childTask, h Holder) *exec.Cmd {
	w.Helper()
	w.must(w.st.Close())
	c.Store, c.Vault, c.Token, c.Issuer = w.path, parts.vault.URL(), parts.vault.RootToken(), w.issuer.String()
	c.Database, c.Offset = w.database, time.Until(w.now())
	if !h.Claims.Tenant.IsZero() {
		c.Claims = h.Claims.AppendJSON(nil)
	}
	task, err := json.Marshal(c)
	w.must(err)
	cmd := exec.CommandContext(w.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(task))
	return cmd
}

// settled lets all time pass that an uncertain lease needs.
func (w *world) settled() {
	w.Helper()
	w.pass()
	w.clock.pass(creatingTimeout)
	w.pass()
	w.clock.pass(callTimeout + w.m.settle)
	w.pass()
	w.pass()
}

// The stages at which a process is killed, by what it is at.
var (
	killedMaking = []struct {
		of, stage string
		whole     bool
		users     int // right after the crash
	}{
		{"database:orders", "journalled", false, 0},
		{"database:orders", "role", false, 0},
		{"database:orders", "made", false, 1},
		{"database:orders", "recorded", true, 1},
		{"kv:mail", "recorded", true, 0},
	}
	killedRenewing = []string{"renewal recorded", "renewed"}
	killedEnding   = []struct {
		do, stage string
		lost      bool // Vault has forgotten the lease
		over      bool // its time is, and nobody released it
	}{
		{"release", "end recorded", false, false}, {"pass", "ending", false, false}, {"pass", "revoked", false, false}, {"pass", "cleared", false, false},
		{"pass", "role deleted", false, false}, {"pass", "gone", false, false}, {"pass", "revoked", true, false}, {"pass", "role to drop a lost user", true, false},
		{"pass", "lost user dropped", true, false}, {"pass", "cleared", true, false}, {"pass", "role deleted", true, false}, {"pass", "gone", true, false},
		{"pass", "revoked", true, true}, {"pass", "role to drop a lost user", true, true}, {"pass", "lost user dropped", true, true}, {"pass", "role deleted", true, true},
	}
	killedOrphaned = []string{"orphan cleared", "orphan recorded", "orphan removed"}
)

// Every stage that the code names is one at which a process is killed.
func TestEveryStageIsOneToBeKilledAt(t *testing.T) {
	killed := make(map[string]bool)
	for _, c := range killedMaking {
		killed[c.stage] = true
	}
	for _, c := range killedEnding {
		killed[c.stage] = true
	}
	for _, stage := range slices.Concat(killedRenewing, killedOrphaned) {
		killed[stage] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range regexp.MustCompile(`m\.at\("([^"]+)"\)`).FindAllStringSubmatch(string(source), -1) {
			named[call[1]] = true
		}
	}
	if !maps.Equal(killed, named) {
		t.Errorf("killed at %q, the code has %q", slices.Sorted(maps.Keys(killed)), slices.Sorted(maps.Keys(named)))
	}
}

// Killed at each point of its making, a lease is either whole and on record, or
// nowhere.
func TestKilledWhileALeaseIsMade(t *testing.T) {
	for _, c := range killedMaking {
		t.Run(c.of+" "+c.stage, func(t *testing.T) {
			w := newWorld(t)
			h := w.token("worker", "acme", w.grant("worker", func(g *registry.Grant) { tenants("acme")(g); g.MaxTTL = credential.MustLifetime(time.Hour) }))
			w.crash(childTask{Do: "obtain", Of: c.of, Stage: c.stage}, h)
			if n := w.users(); n != c.users {
				t.Fatalf("%d users after the crash, the stage says %d", n, c.users)
			}
			all := w.all()
			if len(all) != 1 || (all[0].State == Active) != c.whole {
				t.Fatalf("%+v", all)
			}
			if created := len(w.records()) == 1; created != c.whole {
				t.Errorf("on record: %q", w.records())
			}
			if c.whole {
				w.pass()
				if l := w.row(all[0].ID); l == nil || l.State != Active {
					t.Fatal("a whole lease was taken for abandoned")
				}
			}
			w.settled() // as long as it lives, too
			if left, n, roles := w.all(), w.users(), w.roles(); !c.whole && (len(left) != 0 || n != 0 || len(roles) != 0) {
				t.Errorf("%d rows, %d users, roles %v are left", len(left), n, roles)
			}
			w.clock.pass(time.Hour)
			w.pass()
			if left, n, roles := w.all(), w.users(), w.roles(); len(left) != 0 || n != 0 || len(roles) != 0 {
				t.Errorf("in the end %d rows, %d users, roles %v are left", len(left), n, roles)
			}
		})
	}
}

// Killed while Vault is making the user, which it does to the end.
func TestKilledWhileVaultWorks(t *testing.T) {
	w := newWorld(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	lock, err := w.login(user{"postgres", w.server.SuperPassword()})
	w.must(err)
	// The first user of a tenant waits for its role.
	_, err = lock.Exec(t.Context(), "BEGIN; LOCK TABLE tenantbroker.tenants IN SHARE ROW EXCLUSIVE MODE")
	w.must(err)
	cmd := w.child(childTask{Do: "obtain", Of: "database:orders"}, h)
	w.must(cmd.Start())
	w.eventually(func() bool {
		var waits bool
		w.must(lock.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'tenantbroker.tenants'::regclass AND NOT granted)").Scan(&waits))
		return waits
	})
	w.must(cmd.Process.Kill())
	_ = cmd.Wait() // killed
	w.reopen()
	w.clock.pass(creatingTimeout)
	w.pass() // nothing is there yet
	if all := w.all(); len(all) != 1 || all[0].State != Ending {
		t.Fatalf("%+v", all)
	}
	_, err = lock.Exec(t.Context(), "COMMIT")
	w.must(err)
	// Vault goes on with the call or gives it up, as its client is gone; either way
	// nothing is left when it has had its time.
	w.eventually(func() bool {
		var busy bool
		w.must(lock.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'tenantbroker_vault' AND datname = current_database() AND state <> 'idle')").Scan(&busy))
		return !busy
	})
	w.clock.pass(settleLook)
	w.pass()
	w.settled()
	if left, n, roles := w.all(), w.users(), w.roles(); len(left) != 0 || n != 0 || len(roles) != 0 {
		t.Errorf("%d rows, %d users, roles %v are left", len(left), n, roles)
	}
}

// eventually waits for something that another process does.
func (w *world) eventually(done func() bool) {
	w.Helper()
	for range 3000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.Fatal("it never happened")
}

func TestKilledWhileALeaseIsRenewed(t *testing.T) {
	for _, stage := range killedRenewing {
		t.Run(stage, func(t *testing.T) {
			w := newWorld(t)
			grant := w.grant("worker", tenants("acme"))
			g := w.obtain(w.token("worker", "acme", grant), "database:orders")
			session := w.userOf(g)
			w.clock.pass(2 * time.Second)
			w.crash(childTask{Do: "renew", Lease: g.ID, Stage: stage}, w.token("worker", "acme", grant))
			l := w.row(g.ID)
			if l.State != Active || !l.ExpiresAt.Equal(g.ExpiresAt) || l.Next == nil {
				t.Fatalf("%+v", l)
			}
			if _, err := w.login(session); err != nil {
				t.Error(err)
			}
			w.clock.pass(2 * time.Second)
			got, err := w.m.Renew(t.Context(), w.token("worker", "acme", grant), g.ID, 5*time.Minute) // the client comes again
			w.must(err)
			if left := got.ExpiresAt.Sub(w.now()); left < 4*time.Minute {
				t.Errorf("%s are left", left)
			}
			w.clock.pass(6 * time.Minute)
			w.pass()
			if left, n := w.all(), w.users(); len(left) != 0 || n != 0 {
				t.Errorf("%d rows, %d users are left", len(left), n)
			}
		})
	}
}

func TestKilledWhileALeaseEnds(t *testing.T) {
	for _, c := range killedEnding {
		name := c.stage
		if c.lost {
			name += ", of one that Vault has lost"
		}
		reason := "released"
		if c.over {
			name, reason = name+" and whose time is over", "expired"
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
			g := w.obtain(h, "database:orders")
			if c.lost {
				w.lose(g)
			}
			if c.over {
				w.clock.pass(2 * time.Minute)
			} else if c.do == "pass" {
				w.must(w.m.Release(t.Context(), h, g.ID))
			}
			w.crash(childTask{Do: c.do, Lease: g.ID, Stage: c.stage}, h)
			w.pass()
			if left, n, roles := w.all(), w.users(), w.roles(); len(left) != 0 || n != 0 || len(roles) != 0 {
				t.Errorf("%d rows, %d users, roles %v are left", len(left), n, roles)
			}
			ends := 0
			for _, r := range w.records() {
				if r == "lease.ended "+reason || r == "lease.gone "+reason {
					ends++
				}
			}
			if ends != 2 {
				t.Errorf("on record: %q", w.records())
			}
		})
	}
}

// Wherever the process is killed, an orphan ends and is on record: twice, if it
// is killed between the record and the end.
func TestKilledWhileAnOrphanEnds(t *testing.T) {
	for _, stage := range killedOrphaned {
		t.Run(stage, func(t *testing.T) {
			w := newWorld(t)
			w.forget(w.obtain(w.token("worker", "acme", w.grant("worker", tenants("acme"))), "database:orders"))
			w.crash(childTask{Do: "pass", Stage: stage}, Holder{})
			w.pass()
			if n, roles := w.users(), w.roles(); n != 0 || len(roles) != 0 {
				t.Errorf("%d users, roles %v are left", n, roles)
			}
			want := 1
			if stage == "orphan recorded" {
				want = 2
			}
			if got := slices.DeleteFunc(w.records(), func(r string) bool { return r != "lease.gone orphan" }); len(got) != want {
				t.Errorf("on record: %q", w.records())
			}
		})
	}
}
