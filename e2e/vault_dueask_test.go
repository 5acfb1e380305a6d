package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
)

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

// lease asks for a secret's value, and gives the lease back: what is there, or
// nil for a 503 as it has to be.
func (d *dueBroker) lease(t *testing.T, s dueSecret) map[string]any {
	t.Helper()
	got := d.tryLease(t, "kv", s.id)
	if got == nil {
		return nil
	}
	data := make(map[string]any)
	must(t, json.Unmarshal(got.Data, &data))
	d.giveBack(t, got.ID)
	return data
}

// tryLease asks for a lease: nil for a 503 as it has to be.
func (d *dueBroker) tryLease(t *testing.T, kind, name string) *wire.Lease {
	t.Helper()
	status, header, body := d.call(t, http.MethodPost, "/v1/leases", d.reader, `{"kind":"`+kind+`","name":"`+name+`"}`)
	var got wire.Lease
	switch err := json.Unmarshal(body, &got); {
	case err != nil:
		t.Fatalf("lease: %d %v", status, err)
	case status == http.StatusCreated && got.ID == "":
		t.Fatal("a lease without an id")
	case status == http.StatusCreated:
		return &got
	}
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	if status != http.StatusServiceUnavailable || err != nil || seconds < 1 {
		t.Errorf("lease: %d, Retry-After %q: %s", status, header.Get("Retry-After"), body)
	}
	return nil
}

// giveBack is done when it is on record, whatever becomes of Vault.
func (d *dueBroker) giveBack(t *testing.T, id string) {
	t.Helper()
	if status, _, body := d.call(t, http.MethodDelete, "/v1/leases/"+id, d.reader, ""); status != http.StatusNoContent {
		t.Errorf("giving a lease back: %d %s", status, body)
	}
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
func (d *dueBroker) liveValues(t *testing.T, s dueSecret) (current int, live []int) {
	t.Helper()
	answer, err := d.v.Do(t.Context(), http.MethodGet, "secret/metadata/"+s.path, nil)
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
	_, err = d.v.Do(t.Context(), http.MethodGet, "secret/metadata/"+s.path+".next", nil)
	if said, ok := errors.AsType[*devvault.Error](err); !ok || said.Status != http.StatusNotFound {
		t.Errorf("what waited is still there: %v", err)
	}
	slices.Sort(live)
	return int(n), live
}

// inVault is what is in Vault for the secret's consumers.
func (d *dueBroker) inVault(t *testing.T, s dueSecret) map[string]any {
	t.Helper()
	answer, err := d.v.Do(t.Context(), http.MethodGet, "secret/data/"+s.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	outer, _ := answer["data"].(map[string]any)
	there, _ := outer["data"].(map[string]any)
	return there
}

// sameValue holds what the broker leases to what is in Vault.
func (d *dueBroker) sameValue(t *testing.T, s dueSecret) {
	t.Helper()
	field := map[string]string{"kv": "value", "client-secret": "client_secret"}[s.kind]
	there, served := d.inVault(t, s), d.lease(t, s)
	if value, _ := there[field].(string); value == "" || served[field] != there[field] {
		t.Errorf("%s: the broker leases another value than Vault holds", s.id)
	}
	if version := fmt.Sprint(d.secret(t, s).Version); served["tenantbroker_version"] != version || there["tenantbroker_version"] != version {
		t.Errorf("%s: leased is version %v, in Vault is %v, want %s", s.id, served["tenantbroker_version"], there["tenantbroker_version"], version)
	}
}

// takesOnly has the broker take the client secret that is in Vault now, and not
// the one that was there.
func (d *dueBroker) takesOnly(t *testing.T, now, former map[string]any) {
	t.Helper()
	if now["client_secret"] == former["client_secret"] {
		t.Error("the client secret is the one of before")
	}
	if err := d.signInWith(t, now["client_secret"]); err != nil {
		t.Errorf("the client secret in Vault: %v", err)
	}
	if err := d.signInWith(t, former["client_secret"]); !errors.Is(err, client.ErrInvalidClient) {
		t.Errorf("the client secret of before: %v", err)
	}
}

// signInWith gets a token with a client secret of the teller's.
func (d *dueBroker) signInWith(t *testing.T, secret any) error {
	t.Helper()
	text, _ := secret.(string)
	c, err := client.New(client.Config{
		Issuer: d.Issuer(), Auth: client.ClientSecret{Account: credential.MustAccountID(teller), Secret: credential.NewSecret([]byte(text))},
	})
	must(t, err)
	defer func() { _ = c.Close() }()
	_, err = c.Token(t.Context(), client.TokenRequest{Tenant: credential.MustTenant(acme), Audience: credential.MustAudience(orders)})
	return err
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
