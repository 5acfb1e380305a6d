package kinds_test

import (
	"testing"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
)

// The first rotation of a pair ends a password that applications may have from
// elsewhere, and what a webhook ends nobody knows: these have their overlap.
func TestOnlyWhoFindsAllThatIsInUseBeginsWithNone(t *testing.T) {
	for _, c := range []struct {
		kind secrets.Kind
		want bool
	}{{new(kinds.KV), true}, {new(kinds.Secret), true}, {new(kinds.StaticPair), false}, {new(kinds.Webhook), false}} {
		if _, adopts := c.kind.(secrets.Adopting); adopts != c.want {
			t.Errorf("%s: %t", c.kind.Name(), adopts)
		}
	}
}
