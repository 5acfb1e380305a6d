package issuer

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// realRing fits the key manager to what the issuer asks for, as the wiring does.
type realRing struct{ *keys.Manager }

func (r realRing) Active() (mint.Signer, error) { return r.Manager.Active() }

func withRealRing(tb testing.TB) func(*Config) {
	return func(c *Config) {
		path := filepath.Join(tb.TempDir(), "kek")
		if err := keys.GenerateKeyFile(path); err != nil {
			tb.Fatal(err)
		}
		kek, err := keys.LoadKeyFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		m, err := keys.New(keys.Config{Store: c.Store, Home: keys.Sealed(kek), Now: c.Now})
		if err != nil {
			tb.Fatal(err)
		}
		if err := m.Start(tb.Context()); err != nil {
			tb.Fatal(err)
		}
		c.Keys = realRing{m}
	}
}

func TestTokenFromTheRealRingIsIntrospected(t *testing.T) {
	w := standard(t, withRealRing(t))
	resp := w.token(w.asking("worker", nil))
	if !w.active("worker", resp.AccessToken) {
		t.Error("not active")
	}
	jws, err := credential.ParseJWS(resp.AccessToken)
	w.must(err)
	key, err := w.iss.keys.Key(context.WithoutCancel(t.Context()), jws.KeyID())
	w.must(err)
	if _, err := jws.Verify(key.Algorithm(), key.Public()); err != nil || w.last().KeyID != key.ID() {
		t.Errorf("%v", err)
	}
}

// BenchmarkTokenRealRing is BenchmarkTokenParallel with the real signing keys.
func BenchmarkTokenRealRing(b *testing.B) {
	w := standard(b, withRealRing(b))
	requests := make(chan TokenRequest, b.N)
	for range b.N {
		requests <- w.asking("worker", nil)
	}
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.iss.Token(b.Context(), <-requests); err != nil {
				b.Error(err)
			}
		}
	})
}
