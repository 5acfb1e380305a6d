package e2e

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

// I5: while the commit is withheld there is no answer; once it is through
// there is one; and its record is there.
func TestInvariant_I5_NoAnswerBeforeTheRecordIsDurable(t *testing.T) {
	var disk *storetest.Withholding
	w := newWorld(t, brokertest.WrapStore(func(s store.Store) store.Store {
		disk = storetest.Withhold(s)
		return disk
	}))
	for _, c := range []struct {
		name  string
		start func() (<-chan struct{}, func())
	}{
		{"before the commit", disk.BeforeCommit},
		{"after the commit, before its caller knows", disk.AfterCommit},
	} {
		form := w.form(mailer, acme)
		held, release := c.start()
		defer release()
		answered := make(chan answer, 1)
		failed := make(chan error, 1)
		go func() {
			a, err := postForm(t.Context(), http.DefaultClient, w.URL()+"/oauth2/token", form)
			if err != nil {
				failed <- err
				return
			}
			answered <- a
		}()
		<-held // the request has come as far as its commit
		select {
		case <-answered:
			t.Fatalf("%s: answered while the commit was withheld", c.name)
		case err := <-failed:
			t.Fatal(err)
		case <-time.After(300 * time.Millisecond):
		}
		release()
		select {
		case a := <-answered:
			if a.AccessToken == "" {
				t.Fatalf("%s: %d %s after the release", c.name, a.status, a.Error)
			}
			if !w.recorded(claims(t, a.AccessToken).ID) {
				t.Errorf("%s: the token has no record", c.name)
			}
		case err := <-failed:
			t.Fatal(err)
		}
	}
}

// I5: a record that can't be written means 503 and no token, whether or not
// the disk took it after all; then things go on.
func TestInvariant_I5_NoRecordNoToken(t *testing.T) {
	var disk *storetest.Failing
	w := newWorld(t, brokertest.WrapStore(func(s store.Store) store.Store {
		disk = storetest.NewFailing(s)
		return disk
	}))
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.FailedButTaken} {
		disk.Fail(fault, -1)
		got := w.token(w.form(mailer, acme))
		if got.status != http.StatusServiceUnavailable || got.Error != "temporarily_unavailable" || got.header.Get("Retry-After") == "" {
			t.Errorf("fault %d: %d %s, Retry-After %q", fault, got.status, got.Error, got.header.Get("Retry-After"))
		}
		if bytes.Contains(got.body, []byte("access_token")) {
			t.Errorf("fault %d: a token came with the error", fault)
		}
		disk.Fail(storetest.None, 0)
		w.mustToken(w.form(mailer, acme))
	}
}

// I5: a suspension can't race a mint: no token of the tenant is recorded after
// the suspension is.
func TestInvariant_I5_ASuspensionCannotRaceAMint(t *testing.T) {
	clock := brokertest.NewClock()
	w := newWorld(t, brokertest.WithClock(clock))
	for round := range 8 {
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			forms := make([]string, 0, 40)
			for range 40 {
				forms = append(forms, w.form(mailer, acme).Encode())
			}
			wg.Go(func() {
				for _, f := range forms {
					select {
					case <-stop:
						return
					default:
					}
					resp, err := http.Post(w.URL()+"/oauth2/token", "application/x-www-form-urlencoded", strings.NewReader(f))
					if err != nil {
						t.Error(err)
						return
					}
					_ = resp.Body.Close()
				}
			})
		}
		time.Sleep(time.Duration(round*2) * time.Millisecond)
		if _, err := w.Registry().SuspendTenant(t.Context(), w.By(), credential.MustTenant(acme), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		close(stop)
		wg.Wait()
		var suspended bool
		for _, r := range w.records() {
			switch {
			case r.Type == "tenant.suspended" && r.Resource.ID == acme:
				suspended = true
			case r.Type == "tenant.resumed" && r.Resource.ID == acme:
				suspended = false
			case r.Type == "token.issued" && r.Tenant.String() == acme && suspended:
				t.Fatalf("round %d: token %s was recorded after the suspension", round, r.JTI)
			}
		}
		if !suspended {
			t.Fatal("no record of the suspension")
		}
		if _, err := w.Registry().ResumeTenant(t.Context(), w.By(), credential.MustTenant(acme), 0); err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Second) // in the second of the suspension there are no tokens
	}
}

// I7: no log line, error, answer, metric, audit record or file readable by
// others shows a key, a secret or a whole token.
func TestInvariant_I7_NothingShowsAKeySecretOrToken(t *testing.T) {
	var log testlog.Buffer
	w := newWorld(t, brokertest.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	var secrets []string // as anyone would search for them
	secret := string(w.ClientSecret(mailer).Reveal())
	secrets = append(secrets, secret)

	good := w.form(mailer, acme)
	issued := w.mustToken(good)
	platform := w.platform.token(t, w.URL(), globex, nil)
	secrets = append(secrets, good.Get("client_assertion"), issued.AccessToken, platform)
	var bodies bytes.Buffer
	shown := func(a answer) { bodies.Write(a.body) }
	shown(w.token(good)) // replayed
	shown(w.token(w.exchange(platform, acme)))
	shown(w.token(w.exchange(platform+"x", globex)))
	bySecret := without(without(w.form(mailer, acme), "client_assertion"), "client_assertion_type")
	bySecret.Set("client_id", mailer)
	bySecret.Set("client_secret", secret+"x")
	shown(w.token(bySecret))
	bySecret.Set("client_secret", secret)
	bySecret.Set("tenant", globex)
	shown(w.token(bySecret))
	w.revoke(mailer, issued.AccessToken)
	w.introspect(mailer, issued.AccessToken)

	admin := w.AdminToken()
	secrets = append(secrets, admin)
	for _, path := range []string{"/v1/accounts", "/v1/accounts/" + mailer, "/v1/keys", "/v1/audit?limit=500", "/v1/issuers", "/v1/operators", "/.well-known/jwks.json"} {
		bodies.Write(w.get(path, admin))
	}
	resp, err := http.Get(w.OpsURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := readAnswerRaw(resp)
	if err != nil {
		t.Fatal(err)
	}
	var trail bytes.Buffer
	for _, r := range w.lines() {
		trail.Write(r)
	}
	for where, text := range map[string]string{
		"the log": log.String(), "an answer": bodies.String(), "the metrics": string(metrics), "the audit trail": trail.String(),
	} {
		if len(text) == 0 {
			t.Errorf("%s is empty: nothing was looked at", where)
		}
		for _, s := range secrets {
			for _, part := range append(strings.Split(s, "."), s) {
				if len(part) > 40 && strings.Contains(text, part) {
					t.Errorf("%s shows a secret or a part of a token (%d bytes)", where, len(part))
				}
			}
		}
		for _, marker := range []string{"PRIVATE KEY", `"d":"`, "secret_hash"} {
			if strings.Contains(text, marker) {
				t.Errorf("%s contains %q", where, marker)
			}
		}
	}
	folder := filepath.Dir(w.ConfigFile())
	for _, path := range append(files(t, folder), folder) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			t.Errorf("%s has mode %o", filepath.Base(path), mode)
		}
	}
}

// I8: whatever signs was published first, a standby is always there, early
// rotation is refused, and a token outlives the rotation of its key.
func TestInvariant_I8_NoTokenWithoutItsPublishedKey(t *testing.T) {
	t.Run("keys sealed under a key file", func(t *testing.T) { publishedFirst(t) })
	v := newTestVault(t)
	for _, home := range []string{keys.SealedHome, keys.TransitHome} {
		t.Run("with Vault, "+home, func(t *testing.T) {
			publishedFirst(t, brokertest.Configure(v.configure(home, devvault.ProxyForTest(t, v.Server).URL())))
		})
	}
}

func publishedFirst(t *testing.T, opts ...brokertest.Option) {
	clock := brokertest.NewClock()
	w := newWorld(t, append(opts, brokertest.WithClock(clock))...)
	ring := w.Internal().Keys()
	by := w.By()
	if err := ring.Rotate(t.Context(), by, keys.RotateOptions{}); !errors.Is(err, keys.ErrTooEarly) {
		t.Errorf("a rotation before the standby can be known everywhere: %v, want ErrTooEarly", err)
	}
	clock.Advance(time.Hour) // far beyond the max-age
	if err := ring.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	published := w.publishedKeys()
	if len(published) < 2 {
		t.Fatalf("%d keys published, want active and standby", len(published))
	}
	live := w.mustToken(w.formAt(mailer, acme, clock)).AccessToken
	if err := ring.Rotate(t.Context(), by, keys.RotateOptions{}); err != nil {
		t.Fatalf("a rotation in time: %v", err)
	}
	after := w.mustToken(w.formAt(mailer, acme, clock)).AccessToken
	if kid(t, after) == kid(t, live) {
		t.Error("the rotation changed nothing")
	}
	if !published[kid(t, after)] {
		t.Error("the new key signs though it was not published before")
	}
	now := w.publishedKeys()
	if !now[kid(t, live)] {
		t.Error("the old key is gone while a token that it signed lives")
	}
	if len(now) < 3 {
		t.Errorf("%d keys published after the rotation, want active, standby and retiring", len(now))
	}
	if _, err := w.Verifier(orders).Verify(t.Context(), live); err != nil {
		t.Errorf("a live token of the retiring key: %v", err)
	}
	// Emergency: the key goes at once, its tokens with it, and issuing goes on.
	if err := ring.Revoke(t.Context(), by, kid(t, after), "leaked"); err != nil {
		t.Fatal(err)
	}
	if w.publishedKeys()[kid(t, after)] {
		t.Error("a revoked key is still published")
	}
	next := w.mustToken(w.formAt(mailer, acme, clock)).AccessToken
	if !now[kid(t, next)] {
		t.Error("after an emergency a key signs that was not published before")
	}
	if w.introspectAt(mailer, after, clock) {
		t.Error("a token of a revoked key is active")
	}
}

// I9: ids of tenants, accounts and grants never come back.
func TestInvariant_I9_IdsNeverComeBack(t *testing.T) {
	w := newWorld(t)
	ctx, by, reg := t.Context(), w.By(), w.Registry()
	w.Tenants("gone")
	grant := w.Grant(mailer, orders, "orders:list", "gone")
	if err := reg.DeleteGrant(ctx, by, grant, 0); err != nil {
		t.Fatal(err)
	}
	if err := reg.DeleteTenant(ctx, by, credential.MustTenant("gone"), 0); err != nil {
		t.Fatal(err)
	}
	w.Account("leaver")
	if err := reg.DeleteAccount(ctx, by, credential.MustAccountID("leaver"), 0); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"gone", "GONE"} {
		if _, err := reg.CreateTenant(ctx, by, registry.Tenant{ID: credential.MustTenant(id)}); !errors.Is(err, registry.ErrExists) {
			t.Errorf("tenant %s again: %v, want ErrExists", id, err)
		}
	}
	for _, id := range []string{"leaver", "Leaver"} {
		if _, err := reg.CreateAccount(ctx, by, registry.Account{
			ID: credential.MustAccountID(id), Home: credential.System, Owner: "x",
		}); !errors.Is(err, registry.ErrExists) {
			t.Errorf("account %s again: %v, want ErrExists", id, err)
		}
	}
	seen := map[string]bool{grant: true}
	for range 100 {
		id := w.Grant(mailer, orders, "orders:list", acme)
		if seen[id] {
			t.Fatalf("grant id %s was given twice", id)
		}
		seen[id] = true
		if err := reg.DeleteGrant(ctx, by, id, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// I9: a restored backup revokes all that was issued before and waits out the
// assertions in flight.
func TestInvariant_I9_ARestoredBackupRevokesWhatCameBefore(t *testing.T) {
	clock := brokertest.NewClock()
	w := newWorld(t, brokertest.WithClock(clock))
	old := w.mustToken(w.formAt(mailer, acme, clock)).AccessToken
	config, err := broker.Load(w.ConfigFile(), broker.NoEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "backup.db")
	if _, err := broker.Backup(t.Context(), config, backup, clock.Now); err != nil {
		t.Fatal(err)
	}
	used := w.formAt(mailer, acme, clock) // its use is not in the backup
	w.mustToken(used)
	w.Stop()
	if err := os.Remove(config.StorePath()); err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Restore(t.Context(), broker.RestoreOptions{From: backup, Config: config, Now: clock.Now}); err != nil {
		t.Fatal(err)
	}
	url := serveAgain(t, config, clock)
	if a := postTo(t, url, "/oauth2/token", used); a.status != http.StatusServiceUnavailable {
		t.Errorf("an assertion that was used before the restore: %d %s, want 503", a.status, a.Error)
	}
	if published := publishedAt(t, url); published[kid(t, old)] {
		t.Error("the key of a token from before the restore is still published")
	}
	clock.Advance(6*time.Minute + time.Second)
	if a := postTo(t, url, "/oauth2/token", used); a.status != http.StatusUnauthorized {
		t.Errorf("that assertion once the wait is over: %d %s, want 401", a.status, a.Error)
	}
	fresh := w.formAt(mailer, acme, clock)
	if a := postTo(t, url, "/oauth2/token", fresh); a.AccessToken == "" {
		t.Errorf("a fresh assertion once the wait is over: %d %s", a.status, a.Error)
	}
}

// serveAgain serves a data folder in this process until the test ends.
func serveAgain(t *testing.T, config broker.Config, clock *brokertest.Clock) string {
	t.Helper()
	b, err := broker.Open(t.Context(), config, broker.Deps{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b.Issuer().String()
}

// records are the whole audit log of the running broker.
func (w *world) records() []audit.Record {
	w.t.Helper()
	var out []audit.Record
	for _, line := range w.lines() {
		r, _, err := audit.Parse(line)
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func (w *world) lines() (lines [][]byte) {
	w.t.Helper()
	err := w.Internal().Store().View(w.t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			lines = append(lines, bytes.Clone(e.Raw))
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return lines
}

// recorded reports whether a token's issue is in the audit log.
func (w *world) recorded(jti string) bool {
	w.t.Helper()
	for _, r := range w.records() {
		if r.Type == "token.issued" && r.JTI == jti {
			return true
		}
	}
	return false
}
