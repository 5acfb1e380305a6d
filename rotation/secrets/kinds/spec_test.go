package kinds

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

var ofAcme = secrets.Subject{
	ID: "s", Tenant: credential.MustTenant("acme"), Owner: credential.MustAccountID("app"),
	MaxAge: 30 * 24 * time.Hour, Drain: 7 * 24 * time.Hour,
}

func ofNone() secrets.Subject {
	s := ofAcme
	s.Tenant = credential.Tenant{}
	return s
}

type noClient struct{}

func (noClient) CheckURL(u *url.URL) error {
	if u.Scheme != "https" {
		return errors.New("not https")
	}
	return nil
}

func (noClient) Do(*http.Request) (*http.Response, error) { return nil, errors.New("not here") }
func (noClient) Close()                                   {}

func testKinds() map[string]secrets.Kind {
	l := DefaultLayout()
	outbound := func(ranges []string, bundle string) (Doer, error) {
		if bundle == "bad" || slices.Contains(ranges, "bad") {
			return nil, errors.New("bad")
		}
		return noClient{}, nil
	}
	return map[string]secrets.Kind{
		"kv": NewKV(nil, l), "client-secret": NewSecret(nil, nil, nil, l, time.Now), "webhook": NewWebhook(outbound, nil),
		"database-static-pair": NewStaticPair(nil, nil, l),
	}
}

func TestSpecs_Taken(t *testing.T) {
	for name, c := range map[string]struct {
		kind, spec string
		about      secrets.Subject
		want       string
		resources  []string
		whole      bool
		sensitive  bool
	}{
		"a value of a tenant": {"kv", `{"path":"tenants/acme/orders/hmac"}`, ofAcme,
			`{"mount":"secret","path":"tenants/acme/orders/hmac","field":"value","length":43,"alphabet":"alphanumeric"}`,
			[]string{"kv::secret/tenants/acme/orders/hmac", "kv::secret/tenants/acme/orders/hmac.next"}, false, false},
		"a value of none": {"kv", `{"path":"shared/x","field":"key","length":64,"alphabet":"hex"}`, ofNone(),
			`{"mount":"secret","path":"shared/x","field":"key","length":64,"alphabet":"hex"}`,
			[]string{"kv::secret/shared/x", "kv::secret/shared/x.next"}, false, false},
		"outside the tenant's folder": {"kv", `{"path":"old/place"}`, ofAcme,
			`{"mount":"secret","path":"old/place","field":"value","length":43,"alphabet":"alphanumeric"}`,
			[]string{"kv::secret/old/place", "kv::secret/old/place.next"}, true, false},
		"at another mount": {"kv", `{"mount":"kv/team","path":"tenants/acme/x"}`, ofAcme,
			`{"mount":"kv/team","path":"tenants/acme/x","field":"value","length":43,"alphabet":"alphanumeric"}`,
			[]string{"kv::kv/team/tenants/acme/x", "kv::kv/team/tenants/acme/x.next"}, true, false},
		"in a namespace": {"kv", `{"namespace":"team/a","path":"tenants/acme/x"}`, ofAcme,
			`{"namespace":"team/a","mount":"secret","path":"tenants/acme/x","field":"value","length":43,"alphabet":"alphanumeric"}`,
			[]string{"kv::team/a/secret/tenants/acme/x", "kv::team/a/secret/tenants/acme/x.next"}, true, false},
		"a client secret": {"client-secret", `{"account":"app","path":"tenants/acme/app"}`, ofAcme,
			`{"account":"app","mount":"secret","path":"tenants/acme/app","lifetime":"2160h0m0s"}`,
			[]string{"kv::secret/tenants/acme/app", "kv::secret/tenants/acme/app.next", "client-secret:app"}, false, true},
		"a webhook": {"webhook", `{"url":"https://r.example/rotate","audience":"r"}`, ofAcme,
			`{"url":"https://r.example/rotate","audience":"r"}`, nil, true, true},
		"a webhook of none": {"webhook", `{"url":"https://r.example/","audience":"r","tenant":"acme","inspect":true,"allowed_cidrs":["10.0.0.0/8"]}`, ofNone(),
			`{"url":"https://r.example/","audience":"r","tenant":"acme","allowed_cidrs":["10.0.0.0/8"],"inspect":true}`, nil, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := testKinds()[c.kind].Check([]byte(c.spec), c.about)
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Spec) != c.want || !slices.Equal(got.Resources, c.resources) || got.Whole != c.whole || got.Sensitive != c.sensitive {
				t.Errorf("%s %q whole %t sensitive %t", got.Spec, got.Resources, got.Whole, got.Sensitive)
			}
			// What is stored is read back as it is.
			again, err := testKinds()[c.kind].Check(got.Spec, c.about)
			if err != nil || string(again.Spec) != string(got.Spec) {
				t.Errorf("%s, %v", again.Spec, err)
			}
		})
	}
}

func TestSpecs_Refused(t *testing.T) {
	for name, c := range map[string]struct {
		kind, spec string
		about      secrets.Subject
		field      string
	}{
		"not an object":                    {"kv", `[]`, ofAcme, "spec"},
		"a member twice":                   {"kv", `{"path":"tenants/acme/x","path":"tenants/acme/y"}`, ofAcme, "spec"},
		"an unknown member":                {"kv", `{"path":"tenants/acme/x","other":1}`, ofAcme, "spec"},
		"a member in capitals":             {"kv", `{"Path":"tenants/acme/x"}`, ofAcme, "spec"},
		"null":                             {"kv", `{"path":null}`, ofAcme, "spec.path"},
		"another type":                     {"kv", `{"path":1}`, ofAcme, "spec.path"},
		"no path":                          {"kv", `{}`, ofAcme, "spec.path"},
		"another tenant's folder":          {"kv", `{"path":"tenants/globex/x"}`, ofAcme, "spec.path"},
		"a tenant whose name begins alike": {"kv", `{"path":"tenants/acme2/x"}`, ofAcme, "spec.path"},
		"the tenants' folder itself":       {"kv", `{"path":"tenants/acme"}`, ofAcme, "spec.path"},
		"a tenant's folder, of none":       {"kv", `{"path":"tenants/acme/x"}`, ofNone(), "spec.path"},
		"upwards":                          {"kv", `{"path":"tenants/acme/../globex/x"}`, ofAcme, "spec.path"},
		"encoded":                          {"kv", `{"path":"tenants/acme/%2e%2e/x"}`, ofAcme, "spec.path"},
		"a slash too many":                 {"kv", `{"path":"tenants/acme//x"}`, ofAcme, "spec.path"},
		"a slash at the end":               {"kv", `{"path":"tenants/acme/x/"}`, ofAcme, "spec.path"},
		"where values wait":                {"kv", `{"path":"tenants/acme/x.next"}`, ofAcme, "spec.path"},
		"a long path":                      {"kv", `{"path":"tenants/acme/` + strings.Repeat("x", maxPath) + `"}`, ofAcme, "spec.path"},
		"a mount with dots":                {"kv", `{"path":"x","mount":"../x"}`, ofAcme, "spec.mount"},
		"a bad namespace":                  {"kv", `{"path":"x","namespace":"a b"}`, ofAcme, "spec.namespace"},
		"the broker's field":               {"kv", `{"path":"tenants/acme/x","field":"tenantbroker_version"}`, ofAcme, "spec.field"},
		"a bad field":                      {"kv", `{"path":"tenants/acme/x","field":"a b"}`, ofAcme, "spec.field"},
		"too short":                        {"kv", `{"path":"tenants/acme/x","length":21}`, ofAcme, "spec.length"},
		"too short for hex":                {"kv", `{"path":"tenants/acme/x","length":31,"alphabet":"hex"}`, ofAcme, "spec.length"},
		"too long":                         {"kv", `{"path":"tenants/acme/x","length":1025}`, ofAcme, "spec.length"},
		"an unknown alphabet":              {"kv", `{"path":"tenants/acme/x","alphabet":"greek"}`, ofAcme, "spec.alphabet"},
		"no account":                       {"client-secret", `{"path":"tenants/acme/x"}`, ofAcme, "spec.account"},
		"91 days":                          {"client-secret", `{"account":"app","path":"tenants/acme/x","lifetime":"2161h"}`, ofAcme, "spec.lifetime"},
		"shorter than it gets old":         {"client-secret", `{"account":"app","path":"tenants/acme/x","lifetime":"800h"}`, ofAcme, "max_age"},
		"a client secret elsewhere":        {"client-secret", `{"account":"app","path":"tenants/globex/x"}`, ofAcme, "spec.path"},
		"a bad account":                    {"client-secret", `{"account":"a b","path":"tenants/acme/x"}`, ofAcme, "spec.account"},
		"plain http":                       {"webhook", `{"url":"http://r.example/","audience":"r"}`, ofAcme, "spec.url"},
		"a file":                           {"webhook", `{"url":"file:///etc/passwd","audience":"r"}`, ofAcme, "spec.url"},
		"a user in the URL":                {"webhook", `{"url":"https://u:p@r.example/","audience":"r"}`, ofAcme, "spec.url"},
		"a fragment":                       {"webhook", `{"url":"https://r.example/#x","audience":"r"}`, ofAcme, "spec.url"},
		"no host":                          {"webhook", `{"url":"https:///x","audience":"r"}`, ofAcme, "spec.url"},
		"not a URL":                        {"webhook", `{"url":"https://%zz","audience":"r"}`, ofAcme, "spec.url"},
		"a long URL":                       {"webhook", `{"url":"https://r.example/` + strings.Repeat("x", maxURL) + `","audience":"r"}`, ofAcme, "spec.url"},
		"no audience":                      {"webhook", `{"url":"https://r.example/"}`, ofAcme, "spec.audience"},
		"no tenant for the token":          {"webhook", `{"url":"https://r.example/","audience":"r"}`, ofNone(), "spec.tenant"},
		"the broker's tenant":              {"webhook", `{"url":"https://r.example/","audience":"r","tenant":"system"}`, ofNone(), "spec.tenant"},
		"another tenant for the token":     {"webhook", `{"url":"https://r.example/","audience":"r","tenant":"globex"}`, ofAcme, "spec.tenant"},
		"a bundle that is none":            {"webhook", `{"url":"https://r.example/","audience":"r","ca_bundle":"bad"}`, ofAcme, "spec"},
		"a range that is none":             {"webhook", `{"url":"https://r.example/","audience":"r","allowed_cidrs":["bad"]}`, ofAcme, "spec"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := testKinds()[c.kind].Check([]byte(c.spec), c.about)
			var bad *registry.InvalidError
			if !errors.As(err, &bad) || bad.Field != c.field {
				t.Errorf("%v, want the field %s", err, c.field)
			}
		})
	}
}

func TestLayout(t *testing.T) {
	for l, key := range map[Layout]string{
		DefaultLayout():                            "",
		{Mount: "kv", Tenants: "a", Shared: "b"}:   "",
		{Mount: "", Tenants: "a", Shared: "b"}:     "mount",
		{Mount: "kv", Tenants: "a/", Shared: "b"}:  "tenant_folder",
		{Mount: "kv", Tenants: "a", Shared: ".b"}:  "shared_folder",
		{Mount: "kv", Tenants: "a", Shared: "a"}:   "shared_folder",
		{Mount: "kv", Tenants: "a", Shared: "a/b"}: "shared_folder",
		{Mount: "kv", Tenants: "a/b", Shared: "a"}: "shared_folder",
		{Mount: "kv", Tenants: "ab", Shared: "a"}:  "",
	} {
		if got, err := l.Check(); got != key || (err != nil) != (key != "") {
			t.Errorf("%+v: %q, %v", l, got, err)
		}
	}
}

func TestGenerate(t *testing.T) {
	seen := map[string]bool{}
	for alphabet, chars := range alphabets {
		counts := map[rune]int{}
		for range 200 {
			value := string(generate(100, alphabet).Reveal())
			if len(value) != 100 || seen[value] || !wellFormed(value, 100, alphabet) {
				t.Fatalf("%s: a value of %d", alphabet, len(value))
			}
			seen[value] = true
			for _, r := range value {
				counts[r]++
			}
		}
		// 20,000 characters: each within a third of its share, which chance
		// leaves about once in a million tests.
		share := 20_000 / len(chars)
		for _, r := range chars {
			if n := counts[r]; n < share*2/3 || n > share*4/3 {
				t.Errorf("%s: %q came %d times, its share is %d", alphabet, r, n, share)
			}
		}
	}
	if wellFormed("abc", 4, "hex") || wellFormed("abcg", 4, "hex") {
		t.Error("what hex can't make")
	}
}

// Whatever a spec is, it is refused for a reason or comes out canonical, within
// the folder of its tenant or marked as reaching beyond.
func FuzzSpec(f *testing.F) {
	for _, seed := range []string{
		`{"path":"tenants/acme/x"}`, `{"path":"tenants/acme/../x","mount":"a"}`, `{"account":"app","path":"tenants/acme/x","lifetime":"2160h"}`,
		`{"url":"https://r.example/","audience":"r","allowed_cidrs":["10.0.0.0/8"]}`, `{"url":"https://[::1]:1/%00","audience":"r"}`,
	} {
		f.Add([]byte(seed))
	}
	all := testKinds()
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, k := range all {
			got, err := k.Check(data, ofAcme)
			if err != nil {
				if !errors.Is(err, registry.ErrInvalid) {
					t.Fatalf("%s: %v", name, err)
				}
				continue
			}
			again, err := k.Check(got.Spec, ofAcme)
			if err != nil || string(again.Spec) != string(got.Spec) {
				t.Fatalf("%s: %s, %v", name, again.Spec, err)
			}
			if !json.Valid(got.Spec) {
				t.Fatalf("%s: %s", name, got.Spec)
			}
			for _, r := range got.Resources {
				path, isKV := strings.CutPrefix(r, "kv::secret/")
				if isKV && !got.Whole && !strings.HasPrefix(path, "tenants/acme/") || strings.Contains(path, "..") && strings.Contains(path, "/..") {
					t.Fatalf("%s: %q for an operator of acme", name, r)
				}
			}
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, seed := range []string{`{"state":"done"}`, `{"state":"failed","note":"x"}`, `{"state":"done","state":"failed"}`, `{"State":"done"}`, `{}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		reply, err := parseReply(data)
		if err != nil {
			return
		}
		if !slices.Contains([]string{replyDone, replyNotDone, replyFailed, replyElsewhere}, reply.State) {
			t.Fatalf("%q", reply.State)
		}
		note := reply.note("x")
		if len([]rune(note)) > maxNote+len("the webhook says: …") || strings.ContainsFunc(note, func(r rune) bool { return r < ' ' }) {
			t.Fatalf("%q", note)
		}
	})
}

// A step that a kind doesn't have is an error, of every kind.
func TestNoSuchStep(t *testing.T) {
	stores := func(string, string) Store { return nil }
	l := DefaultLayout()
	for name, k := range map[string]secrets.Kind{
		"kv": NewKV(stores, l), "client-secret": NewSecret(nil, nil, stores, l, time.Now),
	} {
		w := &secrets.Work{Step: "other", Secret: secrets.Secret{Spec: []byte(`{}`)}}
		if _, err := k.Do(context.Background(), w); err == nil {
			t.Errorf("%s did another step", name)
		}
		if _, err := k.Look(context.Background(), w); err == nil {
			t.Errorf("%s found another step", name)
		}
		w.Secret.Spec = []byte(`x`)
		if _, err := k.Do(context.Background(), w); err == nil {
			t.Errorf("%s did something without a spec", name)
		}
		if _, err := k.Look(context.Background(), w); err == nil {
			t.Errorf("%s found something without a spec", name)
		}
		if _, err := k.Prepare(context.Background(), w); err == nil {
			t.Errorf("%s prepared something without a spec", name)
		}
		if _, err := k.Inspect(context.Background(), w); err == nil {
			t.Errorf("%s inspected something without a spec", name)
		}
	}
}
