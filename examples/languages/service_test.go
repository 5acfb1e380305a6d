package languages_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// A service of each language on a real PostgreSQL, behind a PgBouncer whose few
// connections all tenants share, asked by many at once: not one row of another
// tenant is read or written. Without the table's row security the
// same requests find and change them.
func TestNobodyCrossesInAServiceOfAnotherLanguage(t *testing.T) {
	w := newWorld(t, 4)
	bouncer := w.postgres.BounceForTest(t, devpostgres.BouncerOptions{Database: w.database, Settings: map[string]string{"default_pool_size": "2"}})
	for language := range commands {
		t.Run(language, func(t *testing.T) {
			url, log := w.service(language, bouncer.DSN("shop_app", password))
			if crossings := w.cross(url); len(crossings) > 0 || w.changed() > 0 {
				t.Fatalf("%d rows changed by others; crossed:\n%s\n%s", w.changed(), strings.Join(crossings, "\n"), log)
			}
			for _, tenant := range w.tenants {
				if strings.Contains(log.String(), w.tokens[tenant]) {
					t.Error("a token is in the log")
				}
			}
			w.sql("ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY")
			defer w.sql("UPDATE shop.orders SET note = 'of ' || tenant", "ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY")
			if crossings := w.cross(url); len(crossings) == 0 || w.changed() == 0 {
				t.Errorf("without row security %d requests cross, %d rows are another's", len(crossings), w.changed())
			}
		})
	}
}

// cross sends 400 requests at once, and returns what came of those that crossed.
func (w *world) cross(url string) (crossings []string) {
	w.Helper()
	const workers, each = 8, 50
	var mu sync.Mutex
	var all sync.WaitGroup
	for n := range workers {
		random := rand.New(rand.NewPCG(uint64(n), 1))
		all.Go(func() {
			for range each {
				if said := w.attempt(url, random); said != "" {
					mu.Lock()
					crossings = append(crossings, said)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return crossings
}

// attempt asks for something as a tenant, and says what was wrong with the answer.
func (w *world) attempt(url string, random *rand.Rand) string {
	n := len(w.tenants)
	own, order := random.IntN(n), random.IntN(n*perTenant)
	tenant, mine := w.tenants[own], order/perTenant == own
	other := w.tenants[(own+1+random.IntN(n-1))%n]
	method, path, want := "GET", fmt.Sprintf("/t/%s/orders", tenant), 200
	headers := []string{"Authorization", "Bearer " + w.tokens[tenant]}
	switch random.IntN(6) {
	case 0: // the list
	case 1, 2:
		path += fmt.Sprintf("/%d", order)
		want = map[bool]int{true: 200, false: 404}[mine]
	case 3:
		method, path = "PUT", path+fmt.Sprintf("/%d", order)
		want = map[bool]int{true: 200, false: 404}[mine]
	case 4:
		path, want = fmt.Sprintf("/t/%s/orders", other), 403
	case 5:
		headers, want = append(headers, "X-Tenant", other), 403
	}
	what := fmt.Sprintf("%s %s %v as %s", method, path, headers[2:], tenant)
	a, err := ask(w.Context(), method, url+path, "by "+tenant, headers...)
	if err != nil || a.status != want {
		return fmt.Sprintf("%s: %d %s %v, want %d", what, a.status, a.body, err, want)
	}
	if want != 200 {
		return ""
	}
	var orders []struct{ ID int }
	if err := json.Unmarshal([]byte(a.body), &orders); err != nil || len(orders) == 0 {
		return fmt.Sprintf("%s: %v %s", what, err, a.body)
	}
	for _, o := range orders {
		if o.ID/perTenant != own {
			return fmt.Sprintf("%s: order %d is another's", what, o.ID)
		}
	}
	return ""
}

// A role that row security does not bind is refused at start.
func TestAServiceRefusesARoleThatRowSecurityDoesNotBind(t *testing.T) {
	w := newWorld(t, 1)
	bypass, owner, member := w.database+"_bypass", w.database+"_owner", w.database+"_member" // roles are the whole server's
	w.sql("CREATE ROLE "+bypass+" LOGIN BYPASSRLS PASSWORD '"+password+"'; CREATE ROLE "+owner+" LOGIN PASSWORD '"+password+"'",
		"CREATE ROLE "+member+" LOGIN IN ROLE "+bypass+" PASSWORD '"+password+"'",
		"CREATE TABLE shop.more (); ALTER TABLE shop.more OWNER TO "+owner)
	for language := range commands {
		folder := example(t, language)
		for role, secret := range map[string]string{
			devpostgres.Superuser: w.postgres.SuperPassword(), bypass: password, member: password, owner: password,
		} {
			cmd := command(language, folder, "service", "ISSUER="+w.broker.URL(), "AUDIENCE="+audience,
				"DATABASE_URL="+w.postgres.DSN(role, secret, w.database))
			timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
			out, err := cmd.CombinedOutput()
			timer.Stop()
			if err == nil || !strings.Contains(string(out), role+" goes round row security") || strings.Contains(string(out), "listening") {
				t.Errorf("%s as %s: %v\n%s", language, role, err, out)
			}
		}
	}
}

// What a decision leaves in the log leads to the broker's record.
func TestAServiceLogsWhoAndWhy(t *testing.T) {
	w := newWorld(t, 2)
	for language := range commands {
		url, log := w.service(language, w.dsn())
		a, err := ask(t.Context(), "GET", url+"/t/tenant-1/orders", "", "Authorization", "Bearer "+w.tokens["tenant-0"])
		if err != nil || a.status != 403 || a.code() != "wrong_tenant" {
			t.Fatalf("%s: %d %v", language, a.status, err)
		}
		for !strings.HasSuffix(log.String(), "\n") { // it comes beside the answer
			time.Sleep(time.Millisecond)
		}
		var line map[string]any
		must(t, json.Unmarshal([]byte(log.String()), &line))
		for name, want := range map[string]string{
			"decision": "deny", "reason": "tenant_path_differs", "tenant": "tenant-0", "client_id": "worker-of-tenant-0",
		} {
			if line[name] != want {
				t.Errorf("%s: %s is %v, want %s", language, name, line[name], want)
			}
		}
		if jti, _ := line["jti"].(string); len(jti) < 10 {
			t.Errorf("%s: no jti in %v", language, line)
		}
		w.sql("REVOKE SELECT ON shop.orders FROM shop_app")
		a, err = ask(t.Context(), "GET", url+"/t/tenant-0/orders", "", "Authorization", "Bearer "+w.tokens["tenant-0"])
		if err != nil || a.status != 500 || a.code() != "internal" || strings.Contains(a.body, "permission") {
			t.Errorf("%s, a failure: %d %s %v", language, a.status, a.body, err)
		}
		for !strings.Contains(log.String(), "permission denied") { // the log has why
			time.Sleep(time.Millisecond)
		}
		w.sql("GRANT SELECT ON shop.orders TO shop_app")
	}
}
