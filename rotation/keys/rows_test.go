package keys

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// A ring whose row shows another key under the id of one of its own is not
// read: verifiers would be given that key.
func TestAKeyUnderAnIdThatIsNotItsOwnIsRefused(t *testing.T) {
	st, kek := openStore(t), newKeyFile(t)
	m := startManager(t, Config{Store: st, Home: Sealed(kek)})
	s, err := m.Active()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := generate(credential.ES256)
	if err != nil {
		t.Fatal(err)
	}
	posing, err := jwks.NewKey(s.KeyID(), credential.ES256, stranger.Public())
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, st, ringTable, DefaultRing, func(v []byte) []byte {
		changed := strings.Replace(string(v), string(s.Public().JWK()), string(posing.JWK()), 1)
		if changed == string(v) {
			t.Fatal("the row does not hold the key as it was looked for")
		}
		return []byte(changed)
	})
	if err := m.Tick(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
	if k, err := m.Key(t.Context(), s.KeyID()); err != nil || !k.Equal(s.Public()) {
		t.Errorf("what was read before is gone: %v", err)
	}
}

func TestATypeThatIsNoMediaTypeIsNotSigned(t *testing.T) {
	m := startManager(t, Config{})
	s, err := m.Active()
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []string{"", `at+jwt","crit":["x`, `a\b`, "at jwt", "at\njwt", "ät+jwt", strings.Repeat("x", 65)} {
		if raw, err := s.Sign(t.Context(), []byte("{}"), typ); err == nil || raw != "" {
			t.Errorf("typ %q was signed", typ)
		}
	}
}
