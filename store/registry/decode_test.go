package registry

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/store"
)

const storedKey = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","alg":"EdDSA","kid":"k1"}`

var storedSamples = map[string]string{
	"tenant":   `{"id":"acme","labels":{"plan":"gold"},"state":"active","created_at":"2030-01-02T03:04:05Z","updated_at":"2030-01-02T03:04:05Z"}`,
	"account":  `{"id":"worker","home":"system","owner":"x","credentials":[{"id":"k1","kind":"public_key","created_at":"2030-01-02T03:04:05Z","alg":"EdDSA","jwk":` + quoted(storedKey) + `}],"created_at":"2030-01-02T03:04:05Z","updated_at":"2030-01-02T03:04:05Z"}`,
	"audience": `{"name":"orders","owner":"worker","created_at":"2030-01-02T03:04:05Z","updated_at":"2030-01-02T03:04:05Z"}`,
	"grant":    `{"id":"g_1","account":"worker","audience":"orders","scopes":"read","any_tenant":{"reason":"x","expires_at":"2030-01-02T03:04:05Z"},"max_ttl":"5m0s","fan_out":{"tenants":3,"window":60000000000},"reason":"x","created_at":"2030-01-02T03:04:05Z","created_by":"root","updated_at":"2030-01-02T03:04:05Z"}`,
	"issuer":   `{"id":"kube","issuer":"https://kube.example","audience":"broker","discovery":true,"algorithms":["RS256"],"created_at":"2030-01-02T03:04:05Z","updated_at":"2030-01-02T03:04:05Z"}`,
}

func quoted(s string) string { b, _ := json.Marshal(s); return string(b) }

// idOf finds the key under which a sample would be kept.
func idOf(data []byte) string {
	var v struct{ ID, Name string }
	_ = json.Unmarshal(data, &v)
	return v.ID + v.Name
}

// reread decodes a row, encodes it, and decodes that.
func reread[T any](t *testing.T, row store.Row, decode func(store.Row) (*T, error)) (*T, error) {
	first, err := decode(row)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(first)
	if err != nil {
		t.Fatalf("decoded, but can't be written: %v", err)
	}
	second, err := decode(store.Row{Key: row.Key, Value: b, Version: row.Version})
	if err != nil {
		t.Fatalf("written, but can't be read: %v\n%s", err, b)
	}
	b2, err := json.Marshal(second)
	if err != nil || string(b) != string(b2) {
		t.Fatalf("changed on the way: %v\n%s\n%s", err, b, b2)
	}
	return first, nil
}

func decodeAll(t *testing.T, data []byte) map[string]error {
	row := store.Row{Key: idOf(data), Value: data, Version: 7}
	got := map[string]error{}
	_, got["tenant"] = reread(t, row, decodeTenant)
	_, got["account"] = reread(t, row, decodeAccount)
	_, got["audience"] = reread(t, row, decodeAudience)
	_, got["grant"] = reread(t, row, decodeGrant)
	_, got["issuer"] = reread(t, row, decodeIssuer)
	return got
}

func TestStoredRowsAreReadStrictly(t *testing.T) {
	for kind, sample := range storedSamples {
		for other, err := range decodeAll(t, []byte(sample)) {
			if (err == nil) != (other == kind) {
				t.Errorf("a stored %s, read as %s: %v", kind, other, err)
			}
		}
		for what, bad := range map[string]string{
			"unknown member": strings.Replace(sample, "{", `{"more":1,`, 1),
			"second value":   sample + "{}",
			"cut short":      sample[:len(sample)-1],
			"wrong type":     strings.Replace(sample, `"created_at":"2030`, `"created_at":1,"x":"`, 1),
			"nothing in it":  "{}",
			"empty":          "",
		} {
			if err := decodeAll(t, []byte(bad))[kind]; err == nil {
				t.Errorf("a stored %s with %s is read", kind, what)
			}
		}
	}
	for kind, need := range map[string]string{
		"tenant": `"state":"active",`, "account": `"home":"system",`, "audience": `"owner":"worker",`,
		"grant": `"audience":"orders",`, "issuer": `"issuer":"https://kube.example",`,
	} {
		if err := decodeAll(t, []byte(strings.Replace(storedSamples[kind], need, "", 1)))[kind]; err == nil {
			t.Errorf("a stored %s without %s is read", kind, need)
		}
	}
	moved := store.Row{Key: "globex", Value: []byte(storedSamples["tenant"]), Version: 1}
	if _, err := decodeTenant(moved); err == nil {
		t.Error("a row under another key is read")
	}
	for what, change := range map[string][2]string{
		"another kid":       {`"id":"k1"`, `"id":"k2"`},
		"another algorithm": {`"alg":"EdDSA","jwk"`, `"alg":"ES256","jwk"`},
		"a broken key":      {`11qY`, `!!!!`},
		"a bad home":        {`"home":"system"`, `"home":"SYSTEM"`},
	} {
		bad := strings.Replace(storedSamples["account"], change[0], change[1], 1)
		if bad == storedSamples["account"] {
			t.Fatal("nothing changed")
		}
		if _, err := decodeAccount(store.Row{Key: "worker", Value: []byte(bad), Version: 1}); err == nil {
			t.Errorf("an account with %s is read", what)
		}
	}
}

func TestStoredListsOfTenantsAreReadStrictly(t *testing.T) {
	list, err := decodeList("acme\nglobex")
	if err != nil || encodeList(list) != "acme\nglobex" {
		t.Fatal(list, err)
	}
	for _, bad := range []string{"", "globex\nacme", "acme\nacme", "acme\n", "SYSTEM", "a b", strings.Repeat("a\n", 1001)} {
		if _, err := decodeList(bad); err == nil {
			t.Errorf("%.20q is read", bad)
		}
	}
}

func FuzzDecodeStoredObject(f *testing.F) {
	for _, sample := range storedSamples {
		f.Add([]byte(sample))
	}
	f.Fuzz(func(t *testing.T, data []byte) { decodeAll(t, data) })
}

func FuzzDecodeList(f *testing.F) {
	f.Add("acme\nglobex")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := decodeList(s)
		if err == nil && encodeList(list) != s {
			t.Fatalf("%q is read as %v", s, list)
		}
	})
}
