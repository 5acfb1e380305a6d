package kinds_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

var app = credential.MustAccountID("app")

func (w *kindWorld) declareSecret(more map[string]any) {
	w.Helper()
	spec := map[string]any{"account": "app", "path": w.path()}
	for k, v := range more {
		spec[k] = v
	}
	w.declare("client-secret", spec)
}

// works reports whether the broker takes a client secret of app's.
func (w *kindWorld) works(value any) bool {
	text, _ := value.(string)
	return takes(w.Context(), w.registry, app, credential.NewSecret([]byte(text))) == nil
}

func TestClientSecret_BothWorkDuringTheOverlap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, _, byHand, err := w.registry.CreateClientSecret(t.Context(), admin, app, 0, w.now().Add(time.Hour*24))
	w.must(err)
	_, _, another, err := w.registry.CreateClientSecret(t.Context(), admin, app, 0, w.now().Add(time.Hour*24))
	w.must(err)
	w.declareSecret(map[string]any{"lifetime": "1440h"})
	w.ask(false)
	w.until("drain", draining(2)) // those of before are version 1
	now := w.read().Data
	if now["client_id"] != "app" || !w.works(now["client_secret"]) || !w.works(string(byHand.Reveal())) || !w.works(string(another.Reveal())) {
		t.Fatal("not all work during the overlap")
	}
	ends, err := time.Parse(time.RFC3339, fmt.Sprint(now["expires_at"]))
	if left := ends.Sub(w.now()); err != nil || left > 1440*time.Hour || left < 1430*time.Hour {
		t.Errorf("it ends in %s: %v", left, err)
	}
	w.ack(2)
	w.until("rotated", rotated(2))
	if !w.works(now["client_secret"]) || w.works(string(byHand.Reveal())) || w.works(string(another.Reveal())) {
		t.Error("after it not only the new one works")
	}
	a, err := w.registry.Account(t.Context(), admin, app)
	w.must(err)
	if !a.TokensAfter.IsZero() {
		t.Error("the tokens of the new secret were ended with the old one")
	}
	old := now["client_secret"]
	w.rotate(3)
	if next := w.read().Data["client_secret"]; next == old || !w.works(next) || w.works(old) {
		t.Error("after the next rotation not only the newest works")
	}
	if strings.Contains(w.log.String(), fmt.Sprint(w.read().Data["client_secret"])) {
		t.Error("a client secret is in the log")
	}
}

func TestClientSecret_AnswersThatAreLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareSecret(nil)
	w.rotate(1)
	for _, path := range []string{"secret/data/" + w.path() + ".next", "secret/data/" + w.path(), "secret/destroy/" + w.path()} {
		w.breaks(path, devvault.Fault{Times: 1, Effect: true, Status: http.StatusInternalServerError})
	}
	w.rotate(2)
	have, err := w.registry.RotatedSecrets(t.Context(), app)
	w.must(err)
	if len(have) != 1 || !w.works(w.read().Data["client_secret"]) {
		t.Errorf("%d client secrets are left", len(have))
	}
}

// Somebody removes the client secret that consumers have.
func TestClientSecret_Drift(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareSecret(nil)
	w.rotate(1)
	have, err := w.registry.RotatedSecrets(t.Context(), app)
	w.must(err)
	_, err = w.registry.RemoveCredential(t.Context(), admin, app, 0, have[0])
	w.must(err)
	st := w.until("adrift", func(st secrets.Status) bool { w.pass(time.Second); return st.Drift != "" })
	if want := "the client secret " + have[0] + " of app was removed"; st.Drift != want {
		t.Errorf("%q, want %q", st.Drift, want)
	}
	w.ask(true)
	w.until("drain", draining(3))
	w.ack(3)
	w.until("rotated", rotated(3))
	if !w.works(w.read().Data["client_secret"]) {
		t.Error("the new one does not work")
	}
}

// The new client secret is removed while consumers are waited for: the former
// one is all that is left, and it doesn't end.
func TestClientSecret_TheFormerOneStaysWithoutTheNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareSecret(nil)
	w.rotate(1)
	former := w.read().Data["client_secret"]
	w.ask(false)
	w.until("drain", draining(2))
	have, err := w.registry.RotatedSecrets(t.Context(), app)
	w.must(err)
	_, err = w.registry.RemoveCredential(t.Context(), admin, app, 0, have[len(have)-1])
	w.must(err)
	w.ack(2)
	st := w.until("held", func(st secrets.Status) bool { return st.Attempt == nil || st.Attempt.Held })
	if st.Attempt == nil || st.Attempt.Step != secrets.Retire || !strings.Contains(st.Drift, "was removed or has ended") || !w.works(former) {
		t.Fatalf("%+v, %s", st.Attempt, st.Drift)
	}
	// Force ends the rotation, and not the one secret that is left.
	w.ask(true)
	w.until("rotated", rotated(2))
	if old, err := w.root.KV("secret").GetVersion(t.Context(), w.path(), 1); !w.works(former) || err != nil || old.Data["client_secret"] != former {
		t.Fatalf("the former one is gone: %v", err)
	}
	st = w.until("adrift", func(st secrets.Status) bool { w.pass(time.Second); return st.Drift != "" })
	if !strings.Contains(st.Drift, "was removed") {
		t.Errorf("%q", st.Drift)
	}
	// The next rotation begins with what is there, and ends it.
	w.ask(true)
	w.until("drain", draining(4))
	w.ack(4)
	w.until("rotated", rotated(4))
	have, err = w.registry.RotatedSecrets(t.Context(), app)
	w.must(err)
	if w.works(former) || !w.works(w.read().Data["client_secret"]) || len(have) != 1 {
		t.Errorf("%d are valid, and the former one: %t", len(have), w.works(former))
	}
}

// The new one has ended by itself, beside one with a later end date: there is no
// drift, and the next rotation still knows what it replaces.
func TestClientSecret_TheFormerOneEndsWithTheNextRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, _, byHand, err := w.registry.CreateClientSecret(t.Context(), admin, app, 0, w.now().Add(80*24*time.Hour))
	w.must(err)
	w.declareSecret(map[string]any{"lifetime": "960h"}) // 40 days
	w.ask(false)
	w.until("drain", draining(2))
	w.pass(41 * 24 * time.Hour)
	w.ack(2)
	w.until("held", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Held })
	w.ask(true)
	w.until("rotated", rotated(2))
	if !w.works(string(byHand.Reveal())) {
		t.Fatal("the former one is gone")
	}
	w.rotate(3)
	if w.works(string(byHand.Reveal())) || !w.works(w.read().Data["client_secret"]) {
		t.Error("after it not only the new one works")
	}
}

// The account has become an operator's since: whoever reads the path in Vault
// must not become one.
func TestClientSecret_NotOfAnOperator(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareSecret(nil)
	w.rotate(1)
	for _, id := range []string{"root", "app"} {
		if id == "root" {
			_, err := w.registry.CreateAccount(t.Context(), admin, registry.Account{ID: credential.MustAccountID(id), Home: credential.System, Owner: "o",
				Credentials: []registry.Credential{{Kind: registry.PublicKey, JWK: operatorKey(t)}}})
			w.must(err)
		}
		_, err := w.registry.CreateOperator(t.Context(), admin, registry.OperatorSpec{
			Account: credential.MustAccountID(id), Roles: credential.MustScopes("admin"), Tenant: credential.System})
		w.must(err)
	}
	w.ask(false)
	st := w.until("given up", func(st secrets.Status) bool { w.pass(time.Second); return gaveUp(st) })
	if !strings.Contains(st.Last.Failed, "forbidden") {
		t.Errorf("%q", st.Last.Failed)
	}
	if have, err := w.registry.RotatedSecrets(t.Context(), app); err != nil || len(have) != 1 {
		t.Errorf("%v %v", have, err)
	}
	// And none is declared for it.
	_, err := w.m.Create(t.Context(), admin, secrets.Secret{
		ID: "other", Kind: "client-secret", Spec: []byte(`{"account":"root","path":"shared/root"}`), Shared: true,
		Owner: app, Consumers: []credential.AccountID{app}, MaxAge: secrets.Duration(24 * time.Hour),
	})
	if !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("declared for an operator's account: %v", err)
	}
}

func TestWebhook_FromBeginningToEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declare("webhook", map[string]any{"url": w.hook.server.URL, "audience": "rotator", "inspect": true})
	w.rotate(1)
	w.rotate(2)
	if good := w.hook.good(); !slices.Equal(good, []uint64{2}) || w.hook.twice() != 0 {
		t.Errorf("good: %v", good)
	}
	var steps []string
	w.hook.set(func(r *rotator) {
		for _, c := range r.calls {
			if c.Action == "do" && c.Version == 2 {
				steps = append(steps, string(c.Step))
				if c.Secret != w.name || c.Tenant.String() != "acme" || c.OldVersion != 1 || c.Rotation == "" {
					t.Errorf("%+v", c)
				}
			}
		}
	})
	if want := []string{"stage", "apply", "prove", "promote", "retire", "clean"}; !slices.Equal(steps, want) {
		t.Errorf("%q", steps)
	}
	w.hook.set(func(r *rotator) { r.now = 9 })
	st := w.until("adrift", func(st secrets.Status) bool { w.pass(time.Second); return st.Drift != "" })
	if st.Drift != "somebody else has changed it" {
		t.Errorf("%q", st.Drift)
	}
}

func TestWebhook_Answers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		says   string
	}{
		"failed":            {200, `{"state":"failed","note":"no disk"}`, "the webhook says: no disk"},
		"an error":          {502, ``, "answered 502"},
		"not JSON":          {200, `done`, "something else than a state"},
		"another state":     {200, `{"state":"perhaps"}`, "something else than a state"},
		"another member":    {200, `{"state":"done","value":"x"}`, "something else than a state"},
		"twice":             {200, `{"state":"done","state":"failed"}`, "something else than a state"},
		"not a text":        {200, `{"state":1}`, "something else than a state"},
		"too long":          {200, `{"state":"done","note":"` + strings.Repeat("x", 5<<10) + `"}`, "more than 4096 bytes"},
		"control in a note": {200, `{"state":"failed","note":"a\u001b[31mb"}`, "the webhook says: a [31mb"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.hook.set(func(r *rotator) {
				r.answer = func(call kinds.Call, out http.ResponseWriter) bool {
					if call.Step != secrets.Apply {
						return false
					}
					out.WriteHeader(c.status)
					_, _ = out.Write([]byte(c.body)) // to a client that may have gone
					return true
				}
			})
			w.declare("webhook", map[string]any{"url": w.hook.server.URL, "audience": "rotator"})
			w.ask(false)
			st := w.until("failing", func(st secrets.Status) bool {
				return st.Attempt != nil && st.Attempt.Step == secrets.Apply && st.Attempt.Error != ""
			})
			if !strings.Contains(st.Attempt.Error, c.says) || strings.Contains(st.Attempt.Error, hookToken) {
				t.Errorf("%q doesn't say %q", st.Attempt.Error, c.says)
			}
			w.hook.set(func(r *rotator) { r.answer = nil })
			w.until("drain", draining(1))
		})
	}
}

// It says that somebody else has been there.
func TestWebhook_Elsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hook.set(func(r *rotator) {
		r.answer = func(call kinds.Call, out http.ResponseWriter) bool {
			if call.Step != secrets.Promote {
				return false
			}
			_, _ = out.Write([]byte(`{"state":"elsewhere","note":"by hand"}`)) // to a test
			return true
		}
	})
	w.declare("webhook", map[string]any{"url": w.hook.server.URL, "audience": "rotator"})
	w.ask(false)
	st := w.until("given up", gaveUp)
	if st.Drift != "the webhook says: by hand" || len(w.hook.good()) != 0 {
		t.Errorf("%q, good %v", st.Drift, w.hook.good())
	}
}

// The rotator has given consumers the value of a rotation that is given up here,
// such as before the broker's store was restored: nothing removes it.
func TestWebhook_NotRemovedWhileConsumersHaveIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declare("webhook", map[string]any{"url": w.hook.server.URL, "audience": "rotator"})
	w.at("webhook/apply/call/after", func() {
		w.hook.set(func(r *rotator) {
			r.now = 1
			for _, c := range r.calls {
				r.did[c.Rotation+"-promote"] = 1
			}
		})
		w.must(w.m.Abort(t.Context(), admin, w.name, 0))
	})
	w.ask(false)
	st := w.until("held", func(st secrets.Status) bool { return gaveUp(st) || st.Attempt != nil && st.Attempt.Held })
	if st.Attempt == nil || !strings.Contains(st.Drift, "consumers have its value") {
		t.Errorf("%+v, drift %q", st.Attempt, st.Drift)
	}
	w.ask(true)
	w.until("given up", gaveUp)
	if good := w.hook.good(); !slices.Equal(good, []uint64{1}) {
		t.Errorf("good: %v", good)
	}
}

// Nobody answers: the step may have happened, so it is looked for.
func TestWebhook_Away(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declare("webhook", map[string]any{"url": w.hook.server.URL, "audience": "rotator"})
	w.at("webhook/apply/call/before", func() {
		w.hook.set(func(r *rotator) {
			r.answer = func(_ kinds.Call, out http.ResponseWriter) bool {
				panic(http.ErrAbortHandler)
			}
		})
	})
	w.ask(false)
	st := w.until("failing", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Error != "" })
	if !strings.Contains(st.Attempt.Error, "can't be reached") {
		t.Errorf("%q", st.Attempt.Error)
	}
	w.hook.set(func(r *rotator) { r.answer = nil })
	w.until("drain", draining(1))
	w.ack(1)
	w.until("rotated", rotated(1))
}

func operatorKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := jwks.NewKey("k", credential.ES256, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(public.JWK())
}
