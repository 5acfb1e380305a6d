package cacheguard

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/internal/testguard"
	"github.com/tenantbroker/tenantbroker/verifier"
)

var acme = credential.MustTenant("acme")

func TestAKeyCarriesTheTenantOfTheToken(t *testing.T) {
	w := testguard.New(t)
	for _, tenant := range []string{"acme", "globex"} {
		key, err := Key(w.As(tenant), "order", "7:8", "")
		if want := "tb:" + tenant + ":order:7%3A8:"; err != nil || key != want {
			t.Errorf("%q, %v: want %q", key, err, want)
		}
		owner, parts, err := ParseKey(key)
		if err != nil || owner.String() != tenant || !slices.Equal(parts, []string{"order", "7:8", ""}) {
			t.Errorf("read again: %v %q %v", owner, parts, err)
		}
	}
	if _, err := Key(w.As("acme")); !errors.Is(err, ErrNoParts) {
		t.Errorf("without parts: %v", err)
	}
}

func TestThereIsNoKeyWithoutAGoodToken(t *testing.T) {
	w := testguard.New(t)
	ctx := w.As("acme")
	for name, try := range map[string]func(context.Context) error{
		"key":    func(ctx context.Context) error { _, err := Key(ctx, "order"); return err },
		"object": func(ctx context.Context) error { _, err := ObjectName(ctx, "order"); return err },
		"prefix": func(ctx context.Context) error { _, err := ObjectPrefix(ctx); return err },
		"check":  func(ctx context.Context) error { _, err := CheckKey(ctx, "cache", "tb:acme:order"); return err },
		"named":  func(ctx context.Context) error { return CheckObject(ctx, "tenants/acme/order") },
	} {
		if err := try(t.Context()); !errors.Is(err, guard.ErrNoToken) {
			t.Errorf("%s without a token: %v", name, err)
		}
		if err := try(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		defer func() {
			if err := try(ctx); !errors.Is(err, verifier.ErrExpired) {
				t.Errorf("%s with an expired token: %v", name, err)
			}
		}()
	}
	w.Pass(time.Hour)
}

// An error that a caller forgot opens nothing: an empty prefix lists a bucket, and
// under an empty key all who forgot would meet.
func TestWhatComesWithAnErrorIsNobodys(t *testing.T) {
	w := testguard.New(t)
	ended, good := w.As("acme"), w.As("globex")
	w.RevokeTenant("acme")
	made := make(map[string]bool)
	for name, one := range map[string]func() (string, error){
		"key, no token":      func() (string, error) { return Key(t.Context(), "order", "7") },
		"key, ended":         func() (string, error) { return Key(ended, "order", "7") },
		"key, no parts":      func() (string, error) { return Key(good) },
		"key, too long":      func() (string, error) { return Key(good, strings.Repeat("x", MaxKey)) },
		"object, no token":   func() (string, error) { return ObjectName(t.Context(), "a") },
		"object, ended":      func() (string, error) { return ObjectName(ended, "a") },
		"object, leaves":     func() (string, error) { return ObjectName(good, "../globex/a") },
		"object, the tenant": func() (string, error) { return ObjectName(good, "") },
		"object, too long":   func() (string, error) { return ObjectName(good, strings.Repeat("x", MaxObjectName)) },
		"prefix, no token":   func() (string, error) { return ObjectPrefix(t.Context()) },
		"prefix, ended":      func() (string, error) { return ObjectPrefix(ended) },
	} {
		for range 2 {
			text, err := one()
			if err == nil || len(text) < 22 || made[text] {
				t.Errorf("%s: %q, %v", name, text, err)
			}
			made[text] = true
			if tenant, _, err := ParseKey(text); err == nil {
				t.Errorf("%s: %q is a key of %v", name, text, tenant)
			}
			if _, err := CheckKey(good, "cache", text); !errors.Is(err, guard.ErrNoTenant) {
				t.Errorf("%s: %q opens: %v", name, text, err)
			}
			for _, below := range []string{text, text + "a"} {
				if tenant, _, err := ParseObjectName(below); err == nil {
					t.Errorf("%s: %q is an object of %v", name, below, tenant)
				}
			}
			if strings.HasPrefix("tenants/globex/a", text) || strings.HasPrefix("tb:globex:order:7", text) {
				t.Errorf("%s: %q lists what is there", name, text)
			}
		}
	}
}

func TestKeysAreBounded(t *testing.T) {
	const least = len("tb:acme:")
	for _, c := range []struct {
		part string
		ok   bool
	}{
		{strings.Repeat("x", MaxKey-least), true},
		{strings.Repeat("x", MaxKey-least+1), false},
		{strings.Repeat(" ", (MaxKey-least)/3), true},
		{strings.Repeat(" ", (MaxKey-least)/3+1), false}, // long only when written
	} {
		key, err := encode(acme, []string{c.part})
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrTooLong) || len(key) > MaxKey {
			t.Errorf("a part of %d: a key of %d, %v", len(c.part), len(key), err)
		}
	}
}

func TestWhatIsNoKeyIsRefused(t *testing.T) {
	for _, key := range []string{
		"", "tb", "tb:", "tb:acme", "tb::order", "order:7", "acme:order", "TB:acme:order", "tb:ac me:order", "tb:.acme:order",
		"tb:acme:or der", "tb:acme:or%der", "tb:acme:%2", "tb:acme:%", "tb:acme:%3a", "tb:acme:%41", "tb:acme:{x}", "tb:acme:é",
		"tb:acme:" + strings.Repeat("x", MaxKey),
	} {
		if owner, parts, err := ParseKey(key); !errors.Is(err, ErrKey) {
			t.Errorf("%q: %v %q %v", key, owner, parts, err)
		}
	}
}

func TestAKeyOfAnotherIsACrossing(t *testing.T) {
	w := testguard.New(t)
	_, err := CheckKey(w.As("acme"), "cache", "tb:globex:order:7")
	w.WantCrossing(err, "acme", "globex")
	for _, key := range []string{"order:7", "", "tb:acme", strings.Repeat("x", 5000)} {
		_, err := CheckKey(w.As("acme"), "cache", key)
		seen := w.Decisions()
		if !errors.Is(err, guard.ErrNoTenant) || len(seen) != 1 || seen[0].Allowed || len(seen[0].Resource.ID) > MaxKey {
			t.Errorf("%.20q: %v, %d decisions", key, err, len(seen))
		}
	}
}

func FuzzKey(f *testing.F) {
	f.Add("acme", "order", "7", "acme", "order:7", "")
	f.Add("a", "", "", "a", "%", "\xff{}")
	f.Add("acme", "x", "y", "acme.x", "y", "")
	f.Fuzz(func(t *testing.T, tenantA, a1, a2, tenantB, b1, b2 string) {
		a, errA := credential.ParseTenant(tenantA)
		b, errB := credential.ParseTenant(tenantB)
		if errA != nil || errB != nil {
			return
		}
		made := map[string]string{} // key → what it was made of
		for _, in := range []struct {
			tenant credential.Tenant
			parts  []string
		}{{a, []string{a1, a2}}, {b, []string{b1, b2}}, {a, []string{a1}}, {b, []string{b1}}, {a, []string{b1, b2}}, {b, []string{a1 + ":" + a2}}} {
			key, err := encode(in.tenant, in.parts)
			if err != nil {
				continue // too long
			}
			for _, c := range []byte(key) {
				if c <= ' ' || c > '~' || c == '{' || c == '}' {
					t.Fatalf("%q is not for every cache", key)
				}
			}
			tenant, parts, err := ParseKey(key)
			if err != nil || tenant != in.tenant || !slices.Equal(parts, in.parts) {
				t.Fatalf("%q of %v %q reads %v %q, %v", key, in.tenant, in.parts, tenant, parts, err)
			}
			spelled := in.tenant.String() + "\x00" + strings.Join(quoted(in.parts), ",")
			if before, ok := made[key]; ok && before != spelled {
				t.Fatalf("%q is of %q and %q", key, before, spelled)
			}
			made[key] = spelled
		}
	})
}

func quoted(parts []string) []string {
	var q []string
	for _, p := range parts {
		q = append(q, string(appendPart([]byte{'"'}, p))+`"`)
	}
	return q
}

func FuzzParseKey(f *testing.F) {
	f.Add("tb:acme:order:7%3A8:")
	f.Add("tb:acme:%3a")
	f.Fuzz(func(t *testing.T, key string) {
		tenant, parts, err := ParseKey(key)
		if err != nil {
			return
		}
		if again, err := encode(tenant, parts); err != nil || again != key {
			t.Fatalf("%q reads %v %q, which is %q, %v", key, tenant, parts, again, err)
		}
	})
}
