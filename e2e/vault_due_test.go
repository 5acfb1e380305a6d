package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

// What of Vault a fault leaves to a broker.
type left int

const (
	nothing left = iota
	reading      // and what it changes is carried out, without an answer that says so
	all          // it gets over it by itself
)

// What is due, or asked for, while Vault fails is done once: when Vault is back
// or, where its answers are lost, as soon as looking tells what it has done.
func TestVault_WhatIsDueUnderFaults(t *testing.T) {
	t.Parallel() // it waits, most of the time
	faults := make(map[string]vaultFault)
	for _, f := range vaultFaults() {
		faults[f.name] = f
	}
	// Each line has a Vault of its own.
	type row struct {
		fault string
		left  left
	}
	for i, line := range [][]row{
		{{"sealed", nothing}, {"429", nothing}, {"policy shrunk", nothing}},
		{{"503", nothing}, {"each answer takes 5 s", nothing}, {"token revoked and no login", nothing}},
		{{"500 after taking effect", reading}, {"no answer after taking effect", reading}, {"token revoked", all}},
	} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			d := newDueBroker(t)
			for _, r := range line {
				t.Run(r.fault, func(t *testing.T) { d.underFault(t, faults[r.fault], r.left) })
			}
		})
	}
}

// dueBroker signs with Vault, rotates one shared secret there, and leases it.
type dueBroker struct {
	*vaultBroker
	v               *testVault
	reader, watcher string // tokens, of its consumer and an operator
}

// The shared secret, which its consumer leases.
const (
	dueSecret = "mail"
	duePath   = "tenants/" + acme + "/mail"
)

func newDueBroker(t *testing.T) *dueBroker {
	t.Helper()
	v := newTestVault(t)
	targets := filepath.Join(t.TempDir(), "leases.yaml")
	v.must(os.WriteFile(targets, []byte("targets:\n  - {kind: kv, name: mail, mount: secret, path: 'tenants/{tenant}/mail'}\n"), 0o600))
	b := newVaultBroker(t, v, keys.TransitHome, brokertest.Configure(func(d *broker.Document) {
		d.Leases.TargetsFile = targets
		d.Limits.AdminPerSecond, d.Limits.AdminBurst = 1000, 1000
	}))
	d := &dueBroker{vaultBroker: b, v: v}
	b.Grant(mailer, b.Issuer().Leases().String(), "kv:mail", acme)
	_, err := b.Internal().Secrets().Create(t.Context(), b.By(), secrets.Secret{
		ID: dueSecret, Kind: "kv", Spec: json.RawMessage(`{"path":"` + duePath + `"}`), Tenant: credential.MustTenant(acme),
		Owner: credential.MustAccountID(orders), Consumers: []credential.AccountID{credential.MustAccountID(mailer)},
		MaxAge: secrets.Duration(24 * time.Hour),
	})
	v.must(err)
	d.signIn()
	v.must(b.Internal().Secrets().Rotate(t.Context(), b.By(), dueSecret, 0, false))
	d.awaitRotated(t, 1)
	return d
}

// signIn gets tokens while there are any: what is asked for under a fault is
// asked with these.
func (d *dueBroker) signIn() {
	d.reader, d.watcher = d.TokenFor(mailer, d.Issuer().Leases().String(), acme), d.AdminToken()
}

// counted is all that must have grown by one, or not at all.
type counted struct {
	keys, values               int    // versions in Vault
	secret                     uint64 // version of the broker's
	rotates, stages, publishes int    // requests that make one
	rotations, rotationsFailed float64
	stepsFailed                float64
}

func (d *dueBroker) count(t *testing.T) counted {
	t.Helper()
	current, _ := d.liveValues(t)
	return counted{
		keys: d.v.versions(t.Context(), transitKey), values: current, secret: d.secret(t).Version,
		rotates:   d.proxy.Calls(writes("transit/keys/" + transitKey + "/rotate")),
		stages:    d.proxy.Calls(writes("secret/data/" + duePath + ".next")),
		publishes: d.proxy.Calls(writes("secret/data/" + duePath)),
		rotations: d.metric(t, `tenantbroker_secret_rotations_total{kind="kv",outcome="succeeded"}`),

		rotationsFailed: d.metric(t, `tenantbroker_secret_rotations_total{kind="kv",outcome="failed"}`),
		stepsFailed:     d.failures(t),
	}
}

func writes(path string) func(method, at string) bool {
	return func(method, at string) bool { return at == path && method != http.MethodGet }
}

func (d *dueBroker) underFault(t *testing.T, fault vaultFault, left left) {
	ctx := t.Context()
	d.awaitToken(t)
	d.awaitReady(t)
	d.signIn()
	before, active := d.count(t), d.key(t, keys.Active)

	reads := func(method, path string) bool { return method == http.MethodGet && path == "secret/data/"+duePath }
	calls, leased, begun := d.proxy.Calls(nil), d.proxy.Calls(reads), time.Now()
	end, err := fault.begin(ctx, d.v, []*devvault.Proxy{d.proxy})
	must(t, err)
	end = once(end)
	t.Cleanup(func() { _ = end(context.WithoutCancel(ctx)) }) // for the faults after this one, should this test end here
	must(t, d.Internal().Secrets().Rotate(ctx, d.By(), dueSecret, 0, false))
	// In an emergency the key that waits signs, and another is due until Vault makes it.
	must(t, d.Internal().Keys().Rotate(ctx, d.By(), keys.RotateOptions{Emergency: true}))
	if left != all {
		await(t, "the report and the metrics tell of the secret", func() bool {
			r := d.report(t)
			return r.Failing && r.LastError != "" && (d.metric(t, `tenantbroker_secrets_problem{kind="kv"}`) == 1 || d.failures(t) > before.stepsFailed)
		})
	}
	asked, refused := 0, 0
	for ; asked == 0 || time.Since(begun) < outage || left == nothing && refused == 0 || left == reading && d.secret(t).Version == before.secret; asked++ {
		if time.Since(begun) > time.Minute {
			t.Fatalf("after a minute %d of %d leases were refused, and the secret is %+v", refused, asked, d.secret(t))
		}
		if d.lease(t) == nil {
			refused++
		}
		time.Sleep(50 * time.Millisecond)
	}
	down := time.Since(begun)
	leased = d.proxy.Calls(reads) - leased
	calls = d.proxy.Calls(nil) - calls - leased
	if left == nothing {
		if d.key(t, keys.Standby) != "" || d.secret(t).Version != before.secret {
			t.Error("something was rotated without Vault")
		}
	} else if refused == asked { // one may be, while the broker finds out
		t.Errorf("all %d leases were refused, and Vault can be read", asked)
	}
	must(t, end(ctx))

	d.awaitRotated(t, before.secret+1)
	await(t, "another key waits", func() bool { return d.key(t, keys.Standby) != "" })
	d.verified(t, d.awaitToken(t))
	d.awaitReady(t)
	after := d.count(t)
	t.Logf("down %s: %d calls, and %d for %d leases, %d of them refused; %.0f steps failed; all done %s after it",
		down.Round(time.Millisecond), calls, leased, asked, refused, after.stepsFailed-before.stepsFailed, (time.Since(begun) - down).Round(time.Millisecond))
	// The broker looks at the value too, and no lease is asked for twice.
	if most := 40 + int(15*down.Seconds()); calls > most || leased > asked+10 {
		t.Errorf("%d calls to a Vault that fails for %s, want at most %d; %d for %d leases", calls, down, most, leased, asked)
	}
	if d.key(t, keys.Active) == active {
		t.Error("the key that signed still does")
	}
	want := before
	want.keys++
	want.values++
	want.secret++
	want.stages++
	want.publishes++
	want.rotations++
	// How often it failed is not ours to say, and a request to make a key may have been refused.
	want.stepsFailed, want.rotates = after.stepsFailed, after.rotates
	if after != want || left != nothing && after.rotates != before.rotates+1 {
		t.Errorf("counted %+v and then %+v", before, after)
	}
	current, live := d.liveValues(t)
	if !slices.Equal(live, []int{current}) {
		t.Errorf("the versions %v of the value live, and %d is the current one", live, current)
	}
	d.sameValue(t)
	d.noLease(t)
}

// awaitRotated leases the value as its consumer does until it is at a version
// and the rotation has ended.
func (d *dueBroker) awaitRotated(t *testing.T, version uint64) {
	t.Helper()
	await(t, fmt.Sprintf("version %d of the secret", version), func() bool {
		if st := d.secret(t); st.Attempt == nil && st.Asked == nil && st.Version >= version {
			return true
		} else if st.Attempt != nil && st.Attempt.Step == secrets.Drain {
			d.lease(t)
		}
		return false
	})
}

func (d *dueBroker) secret(t *testing.T) secrets.Status {
	t.Helper()
	st, err := d.Internal().Secrets().Get(t.Context(), d.By(), dueSecret)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// key is the id of the key in a state; "" if there is none.
func (d *dueBroker) key(t *testing.T, state keys.State) (id string) {
	t.Helper()
	for _, k := range d.Internal().Keys().List() {
		if k.State == state {
			if id != "" {
				t.Errorf("two keys are %s", state)
			}
			id = k.ID
		}
	}
	return id
}

// report is what GET /v1/report says of the secret: what doctor reads.
func (d *dueBroker) report(t *testing.T) wire.SharedSecretReport {
	t.Helper()
	status, _, body := d.call(t, http.MethodGet, "/v1/report", d.watcher, "")
	var r wire.Report
	if err := json.Unmarshal(body, &r); err != nil || status != http.StatusOK || r.SharedSecrets == nil || len(r.SharedSecrets.Items) != 1 {
		t.Fatalf("report: %d %v", status, err)
	}
	return r.SharedSecrets.Items[0]
}

// failures counts the steps that failed, whichever and why.
func (d *dueBroker) failures(t *testing.T) (n float64) {
	t.Helper()
	_, body := d.ops(t, "/metrics")
	for line := range strings.Lines(string(body)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(name, "tenantbroker_secret_step_failures_total{") {
			one, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			n += one
		}
	}
	return n
}

// lease asks for the value, and gives the lease back: what is there, or nil for a
// 503 as it has to be.
func (d *dueBroker) lease(t *testing.T) map[string]any {
	t.Helper()
	status, header, body := d.call(t, http.MethodPost, "/v1/leases", d.reader, `{"kind":"kv","name":"mail"}`)
	var got wire.Lease
	switch err := json.Unmarshal(body, &got); {
	case err != nil:
		t.Fatalf("lease: %d %v", status, err)
	case status == http.StatusCreated:
		data := make(map[string]any)
		if err := json.Unmarshal(got.Data, &data); err != nil || got.ID == "" {
			t.Fatalf("lease: %v", err)
		}
		if status, _, body := d.call(t, http.MethodDelete, "/v1/leases/"+got.ID, d.reader, ""); status != http.StatusNoContent {
			t.Errorf("giving a lease back: %d %s", status, body)
		}
		return data
	}
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	if status != http.StatusServiceUnavailable || err != nil || seconds < 1 {
		t.Errorf("lease: %d, Retry-After %q: %s", status, header.Get("Retry-After"), body)
	}
	return nil
}

// call makes a request with a token that was got before.
func (d *dueBroker) call(t *testing.T, method, path, token, body string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, d.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.calls.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, answer
}

// liveValues is the current version of the value in Vault, and all that still
// have their data. Nothing waits beside it.
func (d *dueBroker) liveValues(t *testing.T) (current int, live []int) {
	t.Helper()
	answer, err := d.v.Do(t.Context(), http.MethodGet, "secret/metadata/"+duePath, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := answer["data"].(map[string]any)
	n, _ := data["current_version"].(float64)
	versions, _ := data["versions"].(map[string]any)
	for number, about := range versions {
		if about, _ := about.(map[string]any); about["destroyed"] == false && about["deletion_time"] == "" {
			one, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			live = append(live, one)
		}
	}
	_, err = d.v.Do(t.Context(), http.MethodGet, "secret/metadata/"+duePath+".next", nil)
	if said, ok := errors.AsType[*devvault.Error](err); !ok || said.Status != http.StatusNotFound {
		t.Errorf("what waited is still there: %v", err)
	}
	slices.Sort(live)
	return int(n), live
}

// sameValue holds what the broker leases to what is in Vault.
func (d *dueBroker) sameValue(t *testing.T) {
	t.Helper()
	answer, err := d.v.Do(t.Context(), http.MethodGet, "secret/data/"+duePath, nil)
	if err != nil {
		t.Fatal(err)
	}
	outer, _ := answer["data"].(map[string]any)
	there, _ := outer["data"].(map[string]any)
	served := d.lease(t)
	if value, _ := there["value"].(string); value == "" || served["value"] != there["value"] {
		t.Error("the broker leases another value than Vault holds")
	}
	if version := fmt.Sprint(d.secret(t).Version); served["tenantbroker_version"] != version || there["tenantbroker_version"] != version {
		t.Errorf("leased is version %v, in Vault is %v, want %s", served["tenantbroker_version"], there["tenantbroker_version"], version)
	}
}

// noLease holds the broker to what it has given: every lease was given back.
func (d *dueBroker) noLease(t *testing.T) {
	t.Helper()
	await(t, "the end of all leases", func() bool {
		found, _, err := d.Internal().Leases().List(t.Context(), d.By(), lease.Filter{}, "", 1000)
		must(t, err)
		return len(found) == 0
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
