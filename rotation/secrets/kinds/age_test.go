package kinds

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// What is not declared of a client secret fits into its lifetime.
func TestClientSecret_DefaultMaxAge(t *testing.T) {
	const day = 24 * time.Hour
	k := NewSecret(nil, nil, nil, DefaultLayout(), time.Now)
	for name, c := range map[string]struct {
		spec  string
		drain time.Duration
		want  time.Duration
		fits  bool
	}{
		"nothing said":                {`{"account":"app","path":"tenants/acme/app"}`, 7 * day, 83 * day, true},
		"a shorter lifetime":          {`{"account":"app","path":"tenants/acme/app","lifetime":"1440h"}`, 7 * day, 53 * day, true},
		"a short drain":               {`{"account":"app","path":"tenants/acme/app"}`, time.Hour, 90*day - time.Hour, true},
		"a drain as long as it is":    {`{"account":"app","path":"tenants/acme/app"}`, 90 * day, 0, false},
		"a drain longer than it is":   {`{"account":"app","path":"tenants/acme/app","lifetime":"24h"}`, 7 * day, 0, false},
		"a spec that can't be read":   {`[]`, 7 * day, 0, false},
		"a lifetime that is too long": {`{"account":"app","path":"tenants/acme/app","lifetime":"9999h"}`, 7 * day, 90 * day, false},
	} {
		t.Run(name, func(t *testing.T) {
			got := k.DefaultMaxAge(json.RawMessage(c.spec), c.drain)
			if got != c.want {
				t.Fatalf("%s, want %s", got, c.want)
			}
			if got == 0 {
				got = secrets.DefaultMaxAge // as for other kinds
			}
			about := ofAcme
			about.MaxAge, about.Drain = got, c.drain
			if _, err := k.Check(json.RawMessage(c.spec), about); (err == nil) != c.fits || (err != nil && !errors.Is(err, registry.ErrInvalid)) {
				t.Errorf("%v", err)
			}
		})
	}
}
