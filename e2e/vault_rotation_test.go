package e2e

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// transitKey is Vault's name of the keys that brokers sign with in these tests.
const transitKey = "tenantbroker-es256"

// A key that Vault has made is the next key, also where the answer was lost or
// the broker killed before it knew: however a rotation is cut off, Vault makes
// one key for each that is published.
func TestVault_ARotationThatIsCutOffMakesOneKey(t *testing.T) {
	t.Parallel() // it waits, most of the time
	v := newTestVault(t)
	proxy := devvault.ProxyForTest(t, v.Server)
	b := newFastBroker(t, fastTimes{fastMaxAge, time.Hour}, v.configure(keys.TransitHome, proxy.URL()))
	b.start()
	published := make(map[string]bool)
	look := func(name string) {
		t.Helper()
		for _, k := range b.ring(t.Context()) {
			published[k.ID] = true
		}
		if n := v.versions(t.Context(), transitKey); n != len(published) {
			t.Errorf("%s: Vault has made %d keys, %d were published", name, n, len(published))
		}
	}
	key := b.active(t.Context())
	look("at first")
	rotate := func(_, path string) bool { return path == "transit/keys/"+transitKey+"/rotate" }
	for _, c := range []struct {
		name  string
		fault devvault.Fault
		kill  bool
	}{
		{name: "500 after taking effect", fault: devvault.Fault{Effect: true, Status: http.StatusInternalServerError}},
		{name: "no answer after taking effect", fault: devvault.Fault{Effect: true, Cut: true}},
		{name: "503 without effect", fault: devvault.Fault{Status: http.StatusServiceUnavailable}},
		{name: "no answer without effect", fault: devvault.Fault{Cut: true}},
		{name: "the broker killed after it took effect", fault: devvault.Fault{Effect: true, Delay: time.Minute}, kill: true},
		{name: "the broker killed before it took effect", fault: devvault.Fault{Delay: time.Minute, Cut: true}, kill: true},
	} {
		fault := c.fault
		fault.Match, fault.Times = rotate, 1
		calls := proxy.Calls(rotate)
		repair := proxy.Break(fault)
		await(t, c.name+": the rotation reaches Vault", func() bool { b.tryRotate(t, c.kill); return proxy.Calls(rotate) > calls })
		if c.kill {
			before := v.versions(t.Context(), transitKey)
			if fault.Effect {
				await(t, "it takes effect", func() bool { return v.versions(t.Context(), transitKey) > len(published) })
				before = v.versions(t.Context(), transitKey)
			}
			b.kill()
			b.start()
			if n := v.versions(t.Context(), transitKey); n != before {
				t.Errorf("%s: a start made %d keys", c.name, n-before)
			}
		}
		repair()
		key = b.rotate(t.Context(), key, true)
		look(c.name)
	}
	b.terminate()
}

// tryRotate asks for a rotation, and takes any answer but one that says that the
// broker is not in order. With brief it doesn't wait for it.
func (b *fastBroker) tryRotate(t *testing.T, brief bool) {
	t.Helper()
	ctx := t.Context()
	if brief {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
	}
	_, err := b.admin.Keys().Rotate(ctx, false, "test")
	if err == nil || errors.Is(err, wire.ErrTooEarly) || b.later(err) || ctx.Err() != nil {
		return
	}
	t.Fatalf("rotate: %v\n%s", err, b.errors.String())
}
