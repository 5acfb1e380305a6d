package credential_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/credential"
)

// text is what the words have in common.
type text interface {
	String() string
	IsZero() bool
	MarshalText() ([]byte, error)
}

// word is one parser under test, behind one signature.
type word struct {
	parse  func(string) (text, error)
	decode func([]byte) (text, error) // from JSON
}

func wordOf[T text](parse func(string) (T, error)) word {
	return word{
		parse: func(s string) (text, error) { return parse(s) },
		decode: func(b []byte) (text, error) {
			var v T
			err := json.Unmarshal(b, &v)
			return v, err
		},
	}
}

var (
	tenants   = wordOf(credential.ParseTenant)
	accounts  = wordOf(credential.ParseAccountID)
	audiences = wordOf(credential.ParseAudience)
	issuers   = wordOf(credential.ParseIssuerURL)
)

func TestWords(t *testing.T) {
	for _, c := range []struct {
		name string
		word word
		in   string
		ok   bool
	}{
		{"tenant: plain", tenants, "acme", true},
		{"tenant: digit first", tenants, "0x", true},
		{"tenant: all of the grammar", tenants, "Az09_.-", true},
		{"tenant: a UUID", tenants, "0b8f5c0e-8d7a-4d55-9f0e-3f6a1f0c9b11", true},
		{"tenant: longest", tenants, strings.Repeat("t", 64), true},
		{"tenant: the broker itself", tenants, "system", true},
		{"tenant: begins like the broker", tenants, "system1", true},
		{"tenant: empty", tenants, "", false},
		{"tenant: too long", tenants, strings.Repeat("t", 65), false},
		{"tenant: underscore first", tenants, "_a", false},
		{"tenant: dot first", tenants, ".a", false},
		{"tenant: dash first", tenants, "-a", false},
		{"tenant: wildcard", tenants, "*", false},
		{"tenant: space", tenants, "a b", false},
		{"tenant: line end", tenants, "a\n", false},
		{"tenant: NUL", tenants, "a\x00", false},
		{"tenant: slash", tenants, "a/b", false},
		{"tenant: not ASCII", tenants, "é", false},
		{"tenant: not UTF-8", tenants, "\xff", false},
		{"tenant: SYSTEM", tenants, "SYSTEM", false},
		{"tenant: System", tenants, "System", false},
		{"account: plain", accounts, "invoice-worker", true},
		{"account: longest", accounts, strings.Repeat("a", 128), true},
		{"account: too long", accounts, strings.Repeat("a", 129), false},
		{"account: empty", accounts, "", false},
		{"account: colon", accounts, "a:b", false},
		{"audience: a URL", audiences, "https://orders.example/v1?x=1#y", true},
		{"audience: one character", audiences, "o", true},
		{"audience: longest", audiences, strings.Repeat("a", 255), true},
		{"audience: too long", audiences, strings.Repeat("a", 256), false},
		{"audience: empty", audiences, "", false},
		{"audience: space", audiences, "a b", false},
		{"audience: quote", audiences, `a"b`, false},
		{"audience: apostrophe", audiences, `a'b`, false},
		{"audience: DEL", audiences, "a\x7f", false},
		{"audience: not ASCII", audiences, "ö", false},
		{"issuer: plain", issuers, "https://broker.example", true},
		{"issuer: with a port", issuers, "https://broker.example:8443", true},
		{"issuer: loopback by name", issuers, "http://localhost:8080", true},
		{"issuer: loopback v4", issuers, "http://127.0.0.1:8080", true},
		{"issuer: loopback elsewhere in 127/8", issuers, "http://127.1.2.3", true},
		{"issuer: loopback v6", issuers, "http://[::1]:8080", true},
		{"issuer: empty", issuers, "", false},
		{"issuer: no scheme", issuers, "broker.example", false},
		{"issuer: not a URL", issuers, "https://[::1", false},
		{"issuer: http elsewhere", issuers, "http://broker.example", false},
		{"issuer: http on a name like loopback", issuers, "http://localhost.example", false},
		{"issuer: http on an address like loopback", issuers, "http://128.0.0.1", false},
		{"issuer: another scheme", issuers, "ftp://broker.example", false},
		{"issuer: trailing slash", issuers, "https://broker.example/", false},
		{"issuer: path", issuers, "https://broker.example/x", false},
		{"issuer: query", issuers, "https://broker.example?x", false},
		{"issuer: empty query", issuers, "https://broker.example?", false},
		{"issuer: fragment", issuers, "https://broker.example#x", false},
		{"issuer: empty fragment", issuers, "https://broker.example#", false},
		{"issuer: user", issuers, "https://me@broker.example", false},
		{"issuer: upper case", issuers, "https://Broker.example", false},
		{"issuer: scheme in upper case", issuers, "HTTPS://broker.example", false},
		{"issuer: no host", issuers, "https://", false},
		{"issuer: a port alone", issuers, "https://:443", false},
		{"issuer: a colon without a port", issuers, "https://broker.example:", false},
		{"issuer: an escaped host", issuers, "https://br%6fker.example", false},
		{"issuer: a quote", issuers, "https://broker'.example", false},
		{"issuer: an empty label", issuers, "https://x..example", false},
		{"issuer: a label that ends in a hyphen", issuers, "https://x-.example", false},
		{"issuer: a label that begins with a hyphen", issuers, "https://-x.example", false},
		{"issuer: an underscore", issuers, "https://x_y.example", false},
		{"issuer: a label of 64", issuers, "https://" + strings.Repeat("a", 64) + ".example", false},
		{"issuer: a label of 63", issuers, "https://" + strings.Repeat("a", 63) + ".example", true},
		{"issuer: a trailing dot", issuers, "https://broker.example.", false},
		{"issuer: an address", issuers, "https://192.0.2.1:8443", true},
		{"issuer: no such port", issuers, "https://broker.example:99999", false},
		{"issuer: port zero", issuers, "https://broker.example:0", false},
		{"issuer: a port with a zero before", issuers, "https://broker.example:08443", false},
		{"issuer: the port of https", issuers, "https://broker.example:443", false},
		{"issuer: the port of http", issuers, "http://localhost:80", false},
		{"issuer: another scheme's port", issuers, "https://broker.example:80", true},
		{"issuer: too long", issuers, "https://" + strings.Repeat("a", 250), false},
		{"issuer: opaque", issuers, "https:broker.example", false},
	} {
		v, err := c.word.parse(c.in)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		quoted, _ := json.Marshal(c.in)
		decoded, derr := c.word.decode(quoted)
		if (derr == nil) != c.ok && c.in != "" {
			t.Errorf("%s: decoding goes round the parser: %v", c.name, derr)
		}
		if !c.ok {
			if !v.IsZero() || v.String() != "" {
				t.Errorf("%s: refused and yet %q", c.name, v)
			}
			continue
		}
		b, _ := v.MarshalText()
		if v.String() != c.in || string(b) != c.in || v.IsZero() || decoded != v {
			t.Errorf("%s: became %q, %q, %q", c.name, v, b, decoded)
		}
	}
}

func TestMustPanicsOnAnError(t *testing.T) {
	for name, f := range map[string]func(){
		"tenant":   func() { credential.MustTenant("*") },
		"account":  func() { credential.MustAccountID("") },
		"audience": func() { credential.MustAudience(" ") },
		"issuer":   func() { credential.MustIssuerURL("x") },
		"scopes":   func() { credential.MustScopes(" ") },
		"lifetime": func() { credential.MustLifetime(0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestSystemIsTheBrokerAlone(t *testing.T) {
	if !credential.System.IsSystem() || credential.System.String() != "system" || credential.System != credential.MustTenant("system") {
		t.Error("System is not the reserved tenant")
	}
	if credential.MustTenant("acme").IsSystem() || (credential.Tenant{}).IsSystem() {
		t.Error("another tenant passes for the broker")
	}
}

func TestIssuerReservesItsOwnAudiences(t *testing.T) {
	iss := credential.MustIssuerURL("https://broker.example")
	for aud, want := range map[string]bool{
		"https://broker.example":           true,
		"https://broker.example/admin":     true,
		"https://broker.example/":          true,
		"https://Broker.Example/admin":     true,
		"HTTPS://BROKER.EXAMPLE":           true,
		"https://broker.example.evil/x":    false,
		"https://broker.example:443/admin": false,
		"https://orders.example":           false,
		"orders":                           false,
	} {
		if iss.Reserves(credential.MustAudience(aud)) != want {
			t.Errorf("%s: %v", aud, !want)
		}
	}
	if own := iss.Own("admin"); own.String() != "https://broker.example/admin" || !iss.Reserves(own) {
		t.Errorf("Own: %s", own)
	}
	if iss.Reserves(credential.Audience{}) {
		t.Error("no audience is reserved")
	}
}

func TestScopes(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		ok             bool
	}{
		{"none", "", "", true},
		{"one", "orders.read", "orders.read", true},
		{"sorted", "b a c", "a b c", true},
		{"named twice counts once", "a b a", "a b", true},
		{"every character of the grammar", "!#$%&'()*+,-./:;<=>?@[]^_`{|}~", "!#$%&'()*+,-./:;<=>?@[]^_`{|}~", true},
		{"64", strings.Join(many(64), " "), strings.Join(many(64), " "), true},
		{"65", strings.Join(many(65), " "), "", false},
		{"65 with one named twice", strings.Join(append(many(64), "s00"), " "), strings.Join(many(64), " "), true},
		{"longest", strings.Repeat("x", 2048), strings.Repeat("x", 2048), true},
		{"too long", strings.Repeat("x", 2049), "", false},
		{"space first", " a", "", false},
		{"space last", "a ", "", false},
		{"two spaces", "a  b", "", false},
		{"only a space", " ", "", false},
		{"tab", "a\tb", "", false},
		{"quote", `a"`, "", false},
		{"backslash", `a\`, "", false},
		{"not ASCII", "é", "", false},
		{"not ASCII, second", "a é", "", false},
	} {
		s, err := credential.ParseScopes(c.in)
		if (err == nil) != c.ok || s.String() != c.want || s.IsEmpty() != (c.want == "") {
			t.Errorf("%s: %q, %v", c.name, s, err)
			continue
		}
		quoted, _ := json.Marshal(c.in)
		var decoded credential.Scopes
		if err := json.Unmarshal(quoted, &decoded); (err == nil) != c.ok || decoded != s {
			t.Errorf("%s: decoded %q, %v", c.name, decoded, err)
		}
		if c.ok && strings.Join(s.List(), " ") != c.want {
			t.Errorf("%s: listed %q", c.name, s.List())
		}
	}
	if _, err := credential.NewScopes("a b"); err == nil {
		t.Error("a token with a space was one token")
	}
	if _, err := credential.NewScopes(strings.Repeat("a", 1100), strings.Repeat("b", 1100)); err == nil {
		t.Error("a list longer than its limit")
	}
}

func many(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = "s" + string(rune('0'+i/10)) + string(rune('0'+i%10))
	}
	return list
}

// scopes draws a set over a small alphabet, so that sets overlap.
func scopes(t *rapid.T, label string) credential.Scopes {
	s, err := credential.NewScopes(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "ab", "b", "a.b", "c", "abc"}), 0, 6).Draw(t, label)...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestScopesAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := scopes(t, "a"), scopes(t, "b")
		all := true
		for _, one := range b.List() {
			all = all && a.Has(one)
			if !b.Has(one) {
				t.Fatalf("%q has not its own %q", b, one)
			}
		}
		if a.Contains(b) != all {
			t.Fatalf("%q contains %q: %v", a, b, !all)
		}
		if a.Contains(b) && b.Contains(a) && a != b {
			t.Fatalf("%q and %q are equal and differ", a, b)
		}
		if again, err := credential.ParseScopes(a.String()); err != nil || again != a {
			t.Fatalf("%q becomes %q", a, again)
		}
		if a.Has("") || a.Has("a b") || a.Has("zz") {
			t.Fatal("has what is no token of it")
		}
	})
}

func TestLifetime(t *testing.T) {
	for _, c := range []struct {
		in string
		ok bool
	}{
		{"1s", true}, {"5m", true}, {"90s", true}, {"60m", true}, {"1h", true},
		{"0s", false}, {"-5m", false}, {"999ms", false}, {"1500ms", false}, {"1h1s", false}, {"", false}, {"5", false}, {"five", false},
	} {
		var l credential.Lifetime
		err := l.UnmarshalText([]byte(c.in))
		if (err == nil) != c.ok || l.IsZero() == c.ok {
			t.Errorf("%s: %s, %v", c.in, l, err)
			continue
		}
		if !c.ok {
			continue
		}
		d, _ := time.ParseDuration(c.in)
		b, _ := l.MarshalText()
		var again credential.Lifetime
		if again.UnmarshalText(b) != nil || again != l || l.Duration() != d || l.Seconds() != int64(d/time.Second) || l.String() != string(b) {
			t.Errorf("%s: %s, %d s", c.in, l, l.Seconds())
		}
	}
}

func TestShortestNeverLengthens(t *testing.T) {
	short, long, none := credential.MustLifetime(time.Minute), credential.MustLifetime(time.Hour), credential.Lifetime{}
	for _, c := range []struct{ a, b, want credential.Lifetime }{
		{short, long, short}, {long, short, short}, {short, short, short},
		{none, long, long}, {long, none, long}, {none, none, none},
	} {
		if got := credential.Shortest(c.a, c.b); got != c.want {
			t.Errorf("of %s and %s: %s", c.a, c.b, got)
		}
	}
}
