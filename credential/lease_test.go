package credential_test

import (
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
)

func TestLeasable(t *testing.T) {
	for s, ok := range map[string]bool{
		"database:orders": true, "kv:a": true, "kv:0_-z": true, "kv:" + strings.Repeat("n", 63): true,
		"": false, "database": false, "database:": false, "Database:orders": false, "kv:Orders": false, "kv:-a": false,
		"kv:a/b": false, "kv:..": false, "kv:a.b": false, "kv:a:b": false, "kv:a b": false, "kv:*": false, "secret:a": false,
		"kv:ä": false, "kv:a\x00": false, "kv:" + strings.Repeat("n", 64): false,
	} {
		l, err := credential.ParseLeasable(s)
		if (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
		if ok && (l.String() != s || l.IsZero() || string(l.Kind())+":"+l.Name() != s) {
			t.Errorf("%q became %q", s, l)
		}
		if !ok && (!l.IsZero() || l.String() != "") {
			t.Errorf("%q was refused and is %q", s, l)
		}
	}
	var l credential.Leasable
	if err := l.UnmarshalText([]byte("kv:a/b")); err == nil {
		t.Error("decoding goes round the parser")
	}
}

func FuzzParseLeasable(f *testing.F) {
	for _, seed := range []string{"database:orders", "kv:a", "kv:", ":", "kv:a:b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := credential.ParseLeasable(s)
		if err != nil {
			return
		}
		if l.String() != s {
			t.Fatalf("%q became %q", s, l)
		}
		if strings.ContainsAny(l.Name(), "./\\\"' \x00{}%*") {
			t.Fatalf("the name %q would need quoting", l.Name())
		}
		if _, err := credential.NewScopes(s); err != nil {
			t.Fatalf("%q is no scope: %v", s, err)
		}
	})
}
