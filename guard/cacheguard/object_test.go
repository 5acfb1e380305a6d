package cacheguard

import (
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/internal/testguard"
)

func TestAnObjectIsBelowItsTenant(t *testing.T) {
	w := testguard.New(t)
	ctx := w.As("acme")
	prefix, err := ObjectPrefix(ctx)
	if err != nil || prefix != "tenants/acme/" {
		t.Errorf("prefix %q, %v", prefix, err)
	}
	for _, p := range []string{"a", "invoices/2026/07.pdf", "100% sure.txt", "日本/é", "...", ".hidden/..x", "a b", "%zz", "%"} {
		name, err := ObjectName(ctx, p)
		if err != nil || name != prefix+p {
			t.Errorf("%q: %q, %v", p, name, err)
			continue
		}
		if owner, back, err := ParseObjectName(name); err != nil || owner != acme || back != p {
			t.Errorf("%q reads %v %q, %v", name, owner, back, err)
		}
		if err := CheckObject(ctx, name); err != nil {
			t.Errorf("its own: %v", err)
		}
	}
}

var leaving = []string{
	"", "/", "/a", "a/", "a//b", ".", "..", "../globex/a", "a/../../globex/a", "a/.", "./a", `..\globex`, `a\b`, "a\x00", "a\n", "a\x7f", "a\u0085", "a\u2028",
	"%2e%2e/globex", "%2E./a", "a%2fb", "a%5Cb", "%252e", "%%32e%2%65/globex", "a%252fb", "a%00", "a%FF", "\xff",
}

func TestAPathThatCouldLeaveIsRefused(t *testing.T) {
	for _, p := range leaving {
		if name, err := objectName(acme, p); !errors.Is(err, ErrObjectName) {
			t.Errorf("%q: %q, %v", p, name, err)
		}
	}
	const least = len("tenants/acme/")
	if _, err := objectName(acme, strings.Repeat("x", MaxObjectName-least)); err != nil {
		t.Error(err)
	}
	if _, err := objectName(acme, strings.Repeat("x", MaxObjectName-least+1)); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
}

func TestTheNameOfAnothersObjectIsACrossing(t *testing.T) {
	w := testguard.New(t)
	ctx := w.As("acme")
	w.WantCrossing(CheckObject(ctx, "tenants/globex/a"), "acme", "globex")
	for _, name := range []string{
		"", "a", "tenants", "tenants/", "tenants/acme", "tenants/acme/", "/tenants/acme/a", "Tenants/acme/a", "tenants//a", "tenants/../a",
		"tenants/acme/../globex/a", "tenants/acme/%2e%2e/globex/a", "tenants/acme/" + strings.Repeat("x", MaxObjectName),
	} {
		err := CheckObject(ctx, name)
		seen := w.Decisions()
		if !errors.Is(err, guard.ErrNoTenant) || len(seen) != 1 || len(seen[0].Resource.ID) > MaxObjectName {
			t.Errorf("%.40q: %v, %d decisions", name, err, len(seen))
		}
	}
}

func FuzzObjectName(f *testing.F) {
	for _, p := range leaving {
		f.Add("acme", p, "globex", "a")
	}
	f.Add("acme", "x/y", "acme", "x")
	f.Fuzz(func(t *testing.T, tenantA, pathA, tenantB, pathB string) {
		a, errA := credential.ParseTenant(tenantA)
		b, errB := credential.ParseTenant(tenantB)
		if errA != nil || errB != nil {
			return
		}
		one, err := objectName(a, pathA)
		if err != nil {
			return
		}
		if owner, p, err := ParseObjectName(one); err != nil || owner != a || p != pathA {
			t.Fatalf("%q reads %v %q, %v", one, owner, p, err)
		}
		// Whatever undoes escapes on the way, and whatever cleans paths.
		for _, read := range []string{one, unescaped(one), unescaped(unescaped(one)), strings.ReplaceAll(unescaped(one), `\`, "/")} {
			if !strings.HasPrefix(path.Clean("/"+read), "/tenants/"+a.String()+"/") {
				t.Fatalf("%q, read as %q, leaves its tenant", one, read)
			}
		}
		if other, err := objectName(b, pathB); err == nil && one == other && (a != b || pathA != pathB) {
			t.Fatalf("%v %q and %v %q are %q", a, pathA, b, pathB, one)
		}
	})
}

// unescaped undoes what can be undone, as lenient proxies do.
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if one, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(one)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func FuzzParseObjectName(f *testing.F) {
	f.Add("tenants/acme/a/b")
	f.Add("tenants/acme/../globex/a")
	f.Fuzz(func(t *testing.T, name string) {
		tenant, p, err := ParseObjectName(name)
		if err != nil {
			return
		}
		if again, err := objectName(tenant, p); err != nil || again != name {
			t.Fatalf("%q reads %v %q, which is %q, %v", name, tenant, p, again, err)
		}
	})
}
