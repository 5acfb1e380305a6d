package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

// nothing is a kind without anything out there: its steps always succeed.
type nothing struct{}

func (nothing) Name() string    { return "nothing" }
func (nothing) Backend() string { return "" }
func (nothing) Steps() []secrets.Step {
	return []secrets.Step{secrets.Prove, secrets.Promote, secrets.Drain, secrets.Clean}
}
func (nothing) Effects(secrets.Step) []string { return nil }

func (nothing) Check(spec json.RawMessage, _ secrets.Subject) (secrets.Checked, error) {
	return secrets.Checked{Spec: spec}, nil
}

func (nothing) Inspect(context.Context, *secrets.Work) (secrets.Inspection, error) {
	return secrets.Inspection{}, nil
}

func (nothing) Prepare(context.Context, *secrets.Work) (secrets.Handle, error) { return nil, nil }
func (nothing) Do(context.Context, *secrets.Work) (secrets.Handle, error)      { return nil, nil }

func (nothing) Look(context.Context, *secrets.Work) (secrets.Finding, error) {
	return secrets.Finding{What: secrets.FoundDone}, nil
}

// rotating is a world with secrets of acme and of none, which worker consumes,
// at version 1 and waiting for it.
func rotating(t *testing.T) *world {
	t.Helper()
	w := leaseWorld(t)
	w.account("bystander", "system")
	w.grant("bystander", testIssuer+"/leases", "kv:mail", "acme", "globex")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.secrets.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for id, whose := range map[string]string{"of-acme": `"tenant":"acme"`, "shared": `"shared":true`} {
		body := `{"id":"` + id + `","kind":"nothing","spec":{},` + whose + `,"owner":"worker","consumers":["worker"],"overlap":"1ms","reason":"r"}`
		if a := w.call(w.rootToken(), "POST", "/v1/secrets", body); a.status != 201 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if a := w.call(w.rootToken(), "POST", "/v1/secrets/"+id+"/rotate", because); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		w.stands(id, "in drain", func(s wire.SecretStatus) bool { return s.Step == "drain" })
	}
	return w
}

// stands waits until a secret's status is as wanted.
func (w *world) stands(id, what string, ok func(wire.SecretStatus) bool) wire.SecretStatus {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		var s wire.Secret
		a := w.call(w.rootToken(), "GET", "/v1/secrets/"+id, nil)
		if err := json.Unmarshal([]byte(a.body), &s); err != nil {
			w.t.Fatal(err)
		}
		if ok(s.Status) {
			return s.Status
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s is not %s: %s", id, what, a.body)
		}
		w.advance(secrets.MinOverlap)
		time.Sleep(2 * time.Millisecond)
	}
}

func TestAck(t *testing.T) {
	w := rotating(t)
	doc := loadDocument(t)
	const pattern = "/v1/secrets/{id}/ack"
	acme, globex := w.leaseToken("worker", "acme"), w.leaseToken("worker", "globex")
	for name, c := range map[string]struct {
		token, id, body string
		status          int
	}{
		"another tenant's token":           {globex, "of-acme", `{"version":1}`, 404},
		"an account that is no consumer":   {w.leaseToken("bystander", "acme"), "of-acme", `{"version":1}`, 404},
		"the same, of a shared secret":     {w.leaseToken("bystander", "acme"), "shared", `{"version":1}`, 404},
		"no such secret":                   {acme, "nothing", `{"version":1}`, 404},
		"a name that is none":              {acme, "%20", `{"version":1}`, 404},
		"a version that is not there yet":  {acme, "of-acme", `{"version":2}`, 409},
		"no version":                       {acme, "of-acme", `{}`, 422},
		"version 0":                        {acme, "of-acme", `{"version":0}`, 422},
		"something else in the body":       {acme, "of-acme", `{"version":1,"account":"other"}`, 422},
		"an operator's token":              {w.rootToken(), "of-acme", `{"version":1}`, 401},
		"no token":                         {"", "of-acme", `{"version":1}`, 401},
		"a parameter that is not for this": {acme, "of-acme?tenant=acme", `{"version":1}`, 404},
	} {
		a := w.call(c.token, http.MethodPost, "/v1/secrets/"+strings.Replace(c.id, "?", "%3F", 1)+"/ack", c.body)
		if a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		doc.holds(t, http.MethodPost, pattern, a)
	}
	if s := w.stands("of-acme", "there", func(wire.SecretStatus) bool { return true }); len(s.Waiting.Consumers) != 1 {
		t.Fatalf("%+v", s.Waiting)
	}
	// A secret of another tenant and one that is not there are the same.
	there, not := w.call(globex, http.MethodPost, "/v1/secrets/of-acme/ack", `{"version":1}`), w.call(globex, http.MethodPost, "/v1/secrets/nothing/ack", `{"version":1}`)
	if sameBut(there) != sameBut(not) {
		t.Errorf("they differ:\n%s\n%s", there.body, not.body)
	}
	for range 2 { // the second changes nothing
		a := w.call(acme, http.MethodPost, "/v1/secrets/of-acme/ack", `{"version":1}`)
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		doc.holds(t, http.MethodPost, pattern, a)
		doc.takes(t, http.MethodPost, pattern, `{"version":1}`)
	}
	w.stands("of-acme", "rotated", func(s wire.SecretStatus) bool { return s.Step == "" && s.Current == 1 })
	if a := w.call(globex, http.MethodPost, "/v1/secrets/shared/ack", `{"version":1}`); a.status != 200 {
		t.Errorf("a shared one with any tenant: %d %s", a.status, a.body)
	}
	w.stands("shared", "rotated", func(s wire.SecretStatus) bool { return s.Step == "" && s.Current == 1 })
}

// What ends the consumer's standing ends its word, at once.
func TestAck_Standing(t *testing.T) {
	for name, end := range map[string]func(*world){
		"the account is disabled": func(w *world) {
			_, err := w.registry.DisableAccount(w.t.Context(), root(), credential.MustAccountID("worker"), 0)
			must[struct{}](w.t)(struct{}{}, err)
		},
		"the tenant is suspended": func(w *world) {
			_, err := w.registry.SuspendTenant(w.t.Context(), root(), credential.MustTenant("acme"), 0)
			must[struct{}](w.t)(struct{}{}, err)
		},
		"the grant is gone": func(w *world) {
			all := w.call(w.rootToken(), "GET", "/v1/grants?account=worker", nil)
			var page wire.List[wire.Grant]
			must[struct{}](w.t)(struct{}{}, json.Unmarshal([]byte(all.body), &page))
			for _, g := range page.Items {
				if a := w.call(w.rootToken(), "DELETE", "/v1/grants/"+g.ID+"?reason=r", nil); a.status != 204 {
					w.t.Fatalf("%d %s", a.status, a.body)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := rotating(t)
			token := w.leaseToken("worker", "acme")
			end(w)
			if a := w.call(token, http.MethodPost, "/v1/secrets/of-acme/ack", `{"version":1}`); a.status != 401 {
				t.Errorf("%d %s", a.status, a.body)
			}
			if s := w.stands("of-acme", "there", func(wire.SecretStatus) bool { return true }); len(s.Waiting.Consumers) != 1 {
				t.Errorf("%+v", s.Waiting)
			}
		})
	}
}

func TestSecrets_PlanThenRotate(t *testing.T) {
	w := rotating(t)
	first := w.call(w.rootToken(), "POST", "/v1/secrets/rotate", `{"tenant":"acme","plan":true}`)
	var plan wire.SecretsPlan
	must[struct{}](t)(struct{}{}, json.Unmarshal([]byte(first.body), &plan))
	if len(plan.Items) != 1 || plan.Items[0].Held != "a rotation is under way already" || plan.Started {
		t.Fatalf("%s", first.body)
	}
	if a := w.call(w.leaseToken("worker", "acme"), http.MethodPost, "/v1/secrets/of-acme/ack", `{"version":1}`); a.status != 200 {
		t.Fatal(a.body)
	}
	w.stands("of-acme", "rotated", func(s wire.SecretStatus) bool { return s.Step == "" })
	rotate := func(digest string) got {
		return w.call(w.rootToken(), "POST", "/v1/secrets/rotate", `{"account":"worker","tenant":"acme","digest":"`+digest+`","reason":"r"}`)
	}
	if a := rotate(plan.Digest); a.status != 412 {
		t.Errorf("a plan that is no longer so: %d %s", a.status, a.body)
	}
	next := w.call(w.rootToken(), "POST", "/v1/secrets/rotate", `{"account":"worker","tenant":"acme","plan":true}`)
	must[struct{}](t)(struct{}{}, json.Unmarshal([]byte(next.body), &plan))
	if a := rotate(plan.Digest); a.status != 200 || !strings.Contains(a.body, `"started":true`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.stands("of-acme", "in drain", func(s wire.SecretStatus) bool { return s.Step == "drain" && s.Attempt.Version == 2 })
	for body, status := range map[string]int{
		`{"tenant":"acme"}`: 422, // neither plan nor digest
		`{"plan":true}`:     422, // all there is
		`{"tenant":"acme","plan":true,"digest":"x"}`:        422,
		`{"tenant":"acme","digest":"x"}`:                    422, // no reason
		`{"tenant":"acme","digest":"x","reason":"r","x":1}`: 422,
	} {
		if a := w.call(w.rootToken(), "POST", "/v1/secrets/rotate", body); a.status != status {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
}

func TestSecrets_Patch(t *testing.T) {
	w := rotating(t)
	patch := func(id, body string) got {
		at := w.call(w.rootToken(), "GET", "/v1/secrets/"+id, nil).header.Get("Etag")
		return w.call(w.rootToken(), "PATCH", "/v1/secrets/"+id, body, "If-Match", at)
	}
	full := `{"schedule":{"cron":"0 3 * * 1","zone":"Europe/Berlin","jitter":"10m0s","window":{"days":["mon"],"from":"01:00","to":"05:00"}},` +
		`"max_age":"800h0m0s","drain_deadline":"2h0m0s","overlap":"5m0s","pair":"shared-other","reason":"r"}`
	if a := w.call(w.rootToken(), "POST", "/v1/secrets", `{"id":"shared-other","kind":"nothing","spec":{},"shared":true,"owner":"worker","consumers":["worker"],"schedule":{"every":"24h"},"reason":"r"}`); a.status != 201 {
		t.Fatal(a.body)
	}
	a := patch("shared", full)
	var s wire.Secret
	must[struct{}](t)(struct{}{}, json.Unmarshal([]byte(a.body), &s))
	if a.status != 200 || s.Schedule.Cron != "0 3 * * 1" || s.Schedule.Jitter != "10m0s" || s.Schedule.Window.Days[0] != "mon" || s.MaxAge != "800h0m0s" || s.Overlap != "5m0s" || s.Pair != "shared-other" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := patch("shared", `{"schedule":null,"pair":null,"reason":"r"}`); a.status != 200 || strings.Contains(a.body, `"schedule"`) || strings.Contains(a.body, `"pair"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	for body, field := range map[string]string{
		`{"kind":"kv","reason":"r"}`:                      "id",
		`{"id":"other","reason":"r"}`:                     "id",
		`{"tenant":"acme","reason":"r"}`:                  "id",
		`{"max_age":"soon","reason":"r"}`:                 "max_age",
		`{"drain_deadline":1,"reason":"r"}`:               "drain_deadline",
		`{"overlap":"25h","reason":"r"}`:                  "overlap",
		`{"schedule":{"every":"x"},"reason":"r"}`:         "schedule.every",
		`{"schedule":{"every":"24h","a":1},"reason":"r"}`: "schedule.a",
		`{"consumers":[],"reason":"r"}`:                   "consumers",
		`{"consumers":["nobody"],"reason":"r"}`:           "consumers",
		`{"spec":{"other":1},"reason":"r"}`:               "", // a rotation is under way
		`{"description":"d"}`:                             "reason",
	} {
		if a := patch("shared", body); (a.status != 422 && a.status != 409) || a.json("field") != field {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if a := w.call(w.rootToken(), "PATCH", "/v1/secrets/shared", `{"description":"d","reason":"r"}`, "If-Match", `"1"`); a.status != 412 {
		t.Errorf("at another version: %d", a.status)
	}
	if a := w.call(w.rootToken(), "POST", "/v1/secrets", `{"id":"Rotate","kind":"nothing","spec":{},"shared":true,"owner":"worker","consumers":["worker"],"reason":"r"}`); a.status != 409 || a.json("code") != "reserved" {
		t.Errorf("an id that is a path: %d %s", a.status, a.body)
	}
}

// A broker that keeps no secrets says so.
func TestSecrets_None(t *testing.T) {
	w := newWorld(t)
	w.config.Metrics, w.config.Secrets = nil, nil
	w.handler = must[*server](t)(newServer(w.config, adminRoutes()))
	for _, r := range secretRoutes() {
		if r.workload != "" {
			continue
		}
		a := w.call(w.rootToken(), r.method, strings.Replace(r.path, "{id}", "x", 1), `{}`)
		if a.status != 409 || a.json("code") != "conflict" {
			t.Errorf("%s %s: %d %s", r.method, r.path, a.status, a.body)
		}
	}
}
