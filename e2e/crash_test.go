package e2e

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// The real binary under load, killed at random moments: whatever a client
// received is on record, nothing used works again, every chain holds.
func TestCrash_KilledUnderLoad(t *testing.T) { crash(t, 10, gateBound) }

// crash kills the broker times times, and holds its store to opening in most.
func crash(t *testing.T, times int, most time.Duration) {
	folder := filepath.Join(t.TempDir(), "data")
	p := newProcess(t, folder)
	p.start()
	p.declare(t.Context(), acme, globex)
	var (
		received = make(map[string]bool) // jti
		used     []url.Values            // requests that were answered with a token
		slowest  time.Duration
	)
	for round := range times {
		if round > 0 {
			p.start()
			// Assertions that got a token in the round before the kill.
			for _, form := range used[max(0, len(used)-20):] {
				if a := postTo(t, p.url, "/oauth2/token", form); a.status != http.StatusUnauthorized {
					t.Fatalf("round %d: an assertion used before the kill: %d %s, want 401", round, a.status, a.Error)
				}
			}
		}
		tokens, forms := loadUntilKilled(t, p)
		for _, jti := range tokens {
			received[jti] = true
		}
		used = append(used, forms...)
		took := inspect(t, folder, received)
		slowest = max(slowest, took)
	}
	info, err := os.Stat(filepath.Join(folder, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	if slowest > most {
		t.Errorf("the store took %s to open, at most %s", slowest, most)
	}
	t.Logf("%d kills, %d tokens received, all on record; store of %d KiB opens in %s at the slowest",
		times, len(received), info.Size()>>10, slowest)
}

// loadUntilKilled sends requests from 8 clients, kills the broker at a random
// moment once there is something to show, and returns what the clients had
// received by then.
func loadUntilKilled(t *testing.T, p *process) (tokens []string, forms []url.Values) {
	t.Helper()
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 8 {
		wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{}}
			defer c.CloseIdleConnections()
			for i := 0; ; i++ {
				form := p.form([]string{acme, globex}[i%2])
				a, err := postForm(ctx, c, p.url+"/oauth2/token", form)
				if err != nil {
					return // killed
				}
				if a.status != http.StatusOK {
					t.Errorf("%d %s before the kill", a.status, a.Error)
					return
				}
				mu.Lock()
				tokens = append(tokens, claims(t, a.AccessToken).ID)
				forms = append(forms, form)
				mu.Unlock()
			}
		})
	}
	time.Sleep(time.Duration(30+rand.IntN(300)) * time.Millisecond)
	await(t, "ten tokens before the kill", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(tokens) >= 10
	})
	p.kill()
	wg.Wait()
	return tokens, forms
}

// inspect opens the store of a broker that is not running and checks the audit
// log against what clients received. It returns how long the opening took.
func inspect(t *testing.T, folder string, received map[string]bool) time.Duration {
	t.Helper()
	begun := time.Now()
	st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(folder, "store.db"), Writer: "broker"})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	kek, err := keys.LoadKeyFile(filepath.Join(folder, "kek.key"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.AuditKey(t.Context(), st, kek, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := auditlog.Verify(t.Context(), st, signer.Public()); err != nil {
		t.Fatalf("after the kill: %v", err)
	}
	recorded := make(map[string]credential.Tenant)
	err = st.View(t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			if record.Type == "token.issued" {
				recorded[record.JTI] = record.Tenant
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for jti := range received {
		if recorded[jti].IsZero() {
			t.Fatalf("token %s was received and has no record", jti)
		}
	}
	return took
}
