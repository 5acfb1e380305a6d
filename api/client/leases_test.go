package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// leaseBroker plays /v1/leases: each lease lives life, renewals end with
// longest, and what answer returns comes instead.
type leaseBroker struct {
	*faultyBroker
	t       *testing.T
	life    time.Duration
	longest time.Duration
	data    string // of new leases; %d is their number
	renewed string // data of a renewal
	made    map[string]time.Time
	ends    map[string]time.Time
	calls   []string
	tokens  []string
	answer  func(n int, call string) (status int, body string)
}

func newLeaseBroker(t *testing.T) (*leaseBroker, *Client) {
	t.Helper()
	b := &leaseBroker{
		faultyBroker: newFaultyBroker(t, newClock()), t: t, life: time.Minute, longest: time.Hour,
		data: `{"username":"u%d","password":"p%d"}`, made: map[string]time.Time{}, ends: map[string]time.Time{},
	}
	b.hook = b.leases
	return b, newTestClient(t, b.faultyBroker)
}

func (b *leaseBroker) leases(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, wire.PathLeases) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	call := strings.TrimSpace(r.Method + " " + strings.TrimPrefix(r.URL.Path, wire.PathLeases) + " " + string(body))
	b.calls = append(b.calls, call)
	b.tokens = append(b.tokens, r.Header.Get("Authorization"))
	now := b.clock.Now()
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Type", "application/json")
	if b.answer != nil {
		if status, answer := b.answer(len(b.calls), call); status != 0 {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
			return true
		}
	}
	id := strings.Trim(strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, wire.PathLeases), "/renew"), "/")
	answer, status := wire.Lease{ID: id}, http.StatusOK
	switch {
	case r.Method == http.MethodDelete:
		delete(b.ends, id)
		w.WriteHeader(http.StatusNoContent)
		return true
	case id == "":
		n := len(b.made) + 1
		answer.ID, status = fmt.Sprintf("l%d", n), http.StatusCreated
		answer.Data = json.RawMessage(strings.ReplaceAll(b.data, "%d", fmt.Sprint(n)))
		b.made[answer.ID], b.ends[answer.ID] = now, now.Add(b.life)
	case !b.ends[id].After(now):
		w.WriteHeader(http.StatusNotFound)
		return true
	default:
		answer.Data = json.RawMessage(b.renewed)
		if end := now.Add(b.life); end.After(b.made[id].Add(b.longest)) {
			b.ends[id] = b.made[id].Add(b.longest)
		} else {
			b.ends[id] = end
		}
		if b.renewed == "" {
			answer.Data = nil
		}
	}
	answer.ExpiresAt = b.ends[answer.ID]
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
	return true
}

func database(tenant credential.Tenant) LeaseRequest {
	of, err := credential.ParseLeasable("database:orders")
	if err != nil {
		panic(err)
	}
	return LeaseRequest{Tenant: tenant, Of: of}
}

func TestEachLeaseCallOnTheWire(t *testing.T) {
	b, c := newLeaseBroker(t)
	req := database(acme)
	req.TTL = 90 * time.Second
	lease, err := c.Leases().Obtain(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	user, password, err := lease.Login()
	if err != nil || user != "u1" || password != "p1" || lease.ID() != "l1" || lease.Tenant() != acme || lease.Of() != req.Of {
		t.Errorf("%v %q %q %v", lease, user, password, err)
	}
	if life := lease.Expires().Sub(b.clock.Now()); life != b.life-time.Second {
		t.Errorf("it lives %s", life)
	}
	for _, text := range []string{fmt.Sprint(lease), fmt.Sprintf("%#v", lease), fmt.Sprintf("%+v", *lease), lease.LogValue().String()} {
		if strings.Contains(text, "p1") {
			t.Errorf("it shows its data: %s", text)
		}
	}
	renewed, err := c.Leases().Renew(t.Context(), lease)
	if err != nil {
		t.Fatal(err)
	}
	if string(renewed.Reveal()) != string(lease.Reveal()) {
		t.Error("the data are lost")
	}
	if err := c.Leases().Release(t.Context(), renewed); err != nil {
		t.Fatal(err)
	}
	if want := []string{
		`POST  {"kind":"database","name":"orders","ttl":90}`, `POST /l1/renew {"ttl":90}`, `DELETE /l1`,
	}; !slices.Equal(b.calls, want) {
		t.Errorf("%q", b.calls)
	}
	if b.tokens[0] == b.tokens[1] {
		t.Error("renewed with the token that it was made with")
	}
	form := b.seen()[0].form
	if form.Get("audience") != b.issuer.String()+"/leases" || form.Get("scope") != "database:orders" || form.Get("tenant") != "acme" {
		t.Errorf("the token: %v", form)
	}
}

func TestLeaseAnswersThatAreNotBelieved(t *testing.T) {
	soon := epoch.Add(time.Minute).Format(time.RFC3339)
	for name, c := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"no JSON":          {201, `lease`, ErrUnexpected},
		"no id":            {201, `{"expires_at":"` + soon + `"}`, ErrUnexpected},
		"over already":     {201, `{"id":"l9","expires_at":"2020-01-01T00:00:00Z"}`, ErrUnexpected},
		"no end":           {201, `{"id":"l9"}`, ErrUnexpected},
		"not granted":      {403, `{"code":"forbidden"}`, ErrForbidden},
		"too many":         {429, `{"code":"slow_down"}`, ErrSlowDown},
		"not possible now": {503, `{"code":"temporarily_unavailable"}`, ErrUnavailable},
	} {
		b, client := newLeaseBroker(t)
		b.answer = func(int, string) (int, string) { return c.status, c.body }
		if _, err := client.Leases().Obtain(t.Context(), database(acme)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, c := newLeaseBroker(t)
	lease, err := c.Leases().Obtain(t.Context(), database(acme))
	if err != nil {
		t.Fatal(err)
	}
	b.answer = func(int, string) (int, string) { return 200, `{"id":"another","expires_at":"` + soon + `"}` }
	if _, err := c.Leases().Renew(t.Context(), lease); !errors.Is(err, ErrUnexpected) {
		t.Errorf("another lease: %v", err)
	}
	if _, err := c.Leases().Obtain(t.Context(), LeaseRequest{Tenant: acme}); err == nil {
		t.Error("a lease of nothing")
	}
	for _, id := range []string{"", "..", "."} {
		if _, err := c.Leases().Renew(t.Context(), LeaseByID(id, database(acme))); err == nil {
			t.Errorf("%q is an id", id)
		}
		if err := c.Leases().Release(t.Context(), LeaseByID(id, database(acme))); err == nil {
			t.Errorf("%q is an id", id)
		}
	}
	if _, _, err := LeaseByID("x", database(acme)).Login(); err == nil {
		t.Error("a login of nothing")
	}
}

// A grant that changed since the token was issued costs a second token.
func TestALeaseIsAskedForAgainWithAFreshToken(t *testing.T) {
	b, c := newLeaseBroker(t)
	b.answer = func(n int, _ string) (int, string) { return map[int]int{1: 401}[n], `{"code":"unauthenticated"}` }
	if _, err := c.Leases().Obtain(t.Context(), database(acme)); err != nil {
		t.Fatal(err)
	}
	if len(b.calls) != 2 || b.tokens[0] == b.tokens[1] {
		t.Errorf("%q", b.calls)
	}
}

// keep runs Keep until n leases were handed out, or it ends by itself.
func keep(t *testing.T, c *Client, n int, more func(*Lease)) (handed []*Lease, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = c.Leases().Keep(ctx, Keeping{Request: database(acme), Changed: func(_ context.Context, l *Lease) error {
		handed = append(handed, l)
		if more != nil {
			more(l)
		}
		if len(handed) == n {
			cancel()
		}
		return nil
	}})
	return handed, err
}

func TestKeepReplacesALeaseBeforeItEnds(t *testing.T) {
	b, c := newLeaseBroker(t)
	b.longest = 5 * time.Minute
	var last *Lease
	handed, err := keep(t, c, 4, func(l *Lease) {
		if last != nil {
			if left := last.Expires().Sub(b.clock.Now()); left < b.life/3-2*time.Second {
				t.Errorf("the one before has %s left", left)
			}
			b.mu.Lock()
			if !b.ends[last.ID()].After(b.clock.Now()) {
				t.Error("the one before has ended")
			}
			b.mu.Unlock()
		}
		// What was handed out lives on by renewals that nobody is told of.
		last = LeaseByID(l.ID(), l.request)
		last.expires = epoch.Add(l.Expires().Sub(epoch) + b.longest - b.life)
	})
	if err != nil || len(handed) != 4 {
		t.Fatalf("%d, %v", len(handed), err)
	}
	renewals := 0
	for _, call := range b.calls {
		if strings.Contains(call, "/renew") {
			renewals++
		}
	}
	if renewals < 20 {
		t.Errorf("%d renewals of leases that live five minutes: %q", renewals, b.calls)
	}
	if call := b.calls[len(b.calls)-1]; call != "DELETE /l4" {
		t.Errorf("at the end: %s", call)
	}
}

func TestKeepTellsOfValuesThatChanged(t *testing.T) {
	b, c := newLeaseBroker(t)
	b.data, b.renewed = `{"v":1}`, `{"v":1}`
	handed, err := keep(t, c, 2, nil2(func() {
		b.answer = func(n int, _ string) (int, string) {
			if n == 4 {
				b.renewed = `{"v":2}`
			}
			return 0, ""
		}
	}))
	if err != nil || len(handed) != 2 || string(handed[1].Reveal()) != `{"v":2}` || handed[1].ID() != handed[0].ID() {
		t.Errorf("%v, %v", handed, err)
	}
	if len(b.calls) != 5 { // made, two renewals without a change, one with, given back
		t.Errorf("%q", b.calls)
	}
}

func nil2(once func()) func(*Lease) {
	return func(*Lease) {
		if once != nil {
			once()
			once = nil
		}
	}
}

func TestKeepGoesOnThroughAnOutage(t *testing.T) {
	b, c := newLeaseBroker(t)
	down := 0
	b.answer = func(n int, _ string) (int, string) {
		if n == 1 || n == 2 || (n >= 4 && n <= 40) {
			down++
			return 503, `{"code":"temporarily_unavailable"}`
		}
		return 0, ""
	}
	handed, err := keep(t, c, 2, nil)
	if err != nil || len(handed) != 2 || down < 30 {
		t.Errorf("%d leases, %d refusals, %v", len(handed), down, err)
	}
}

func TestKeepEndsWhereTheBrokerDecides(t *testing.T) {
	for name, status := range map[string]int{"not granted": 403, "the token is not accepted": 401} {
		for _, from := range []int{1, 3} {
			b, c := newLeaseBroker(t)
			b.answer = func(n int, _ string) (int, string) {
				if n >= from {
					return status, `{}`
				}
				return 0, ""
			}
			handed, err := keep(t, c, 2, nil)
			if !final(err) || len(handed) > 1 {
				t.Errorf("%s from call %d: %d leases, %v", name, from, len(handed), err)
			}
			if call := b.calls[len(b.calls)-1]; strings.HasPrefix(call, "DELETE") {
				t.Errorf("%s: gives back what it has no more", name)
			}
		}
	}
	b, c := newLeaseBroker(t)
	if err := c.Leases().Keep(t.Context(), Keeping{Request: database(acme)}); err == nil {
		t.Error("nobody to tell")
	}
	broken := errors.New("the pool is gone")
	if err := c.Leases().Keep(t.Context(), Keeping{Request: database(acme), Changed: func(context.Context, *Lease) error { return broken }}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if len(b.ends) != 0 {
		t.Errorf("what nobody wanted is not given back: %q", b.calls)
	}
}

func TestOperatorsLeaseCallsOnTheWire(t *testing.T) {
	c, calls := adminBroker(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"items":[{"id":"l1","kind":"kv","name":"mail","tenant":"acme","account":"worker","state":"ending","ending":{"reason":"expired"}}]}`)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	admin := c.Admin(credential.System)
	n := 0
	for l, err := range admin.Leases().List(t.Context(), LeaseFilter{Tenant: acme, Account: worker, Ending: true}) {
		if n++; err != nil || l.ID != "l1" || l.Ending.Reason != "expired" {
			t.Errorf("%+v, %v", l, err)
		}
	}
	if err := admin.Leases().Revoke(t.Context(), "l1", "a & b"); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	if err := admin.Leases().Revoke(t.Context(), "..", "x"); err == nil {
		t.Error("a path that climbs")
	}
	want := []adminCall{
		{method: "GET", path: "/v1/leases", query: "account=worker&state=ending&tenant=acme"},
		{method: "DELETE", path: "/v1/leases/l1", query: "reason=a+%26+b"},
	}
	if !slices.Equal(*calls, want) {
		t.Errorf("%+v", *calls)
	}
}
