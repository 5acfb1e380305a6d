//go:build soak

package e2e

import (
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
)

// 500 kills of the real binary under load: its store opens within a second.
func TestSoakCrash(t *testing.T) { crash(t, 500, time.Second) }

// 200 rotations of the signing key under load.
func TestSoakRotation(t *testing.T) { rotations(t, 200) }

// A revocation reaches every connected verifier within two seconds of its commit
// or, where that comes later, of the broker's return.
func TestSoakRevocation(t *testing.T) { fleet(t, 2*time.Second) }

// Every fault of Vault ten times: whatever it was, tokens signed by Vault are
// back within two seconds.
func TestSoakVaultFaults(t *testing.T) { vaultFaultsInTurn(t, 10, 2*time.Second) }

// An unknown and an ungranted tenant can't be told apart by time: 10,000
// interleaved pairs in random order, compared by the Mann-Whitney rank test. The bound is on
// the effect, P(unknown slower than ungranted), which is 0.5 for no difference:
// 0.5 ± 0.02. With 10,000 pairs its standard error is 0.004, so the bound is
// five of these away: chance alone does not reach it, and an attacker who
// averages thousands of requests learns less than that.
func TestSoakTimingOfUnknownAgainstUngranted(t *testing.T) {
	const pairs, bound = 10_000, 0.02
	const unheard = "initec" // as long as globex: the attacker knows what it sends
	w := newWorld(t, brokertest.Configure(func(d *broker.Document) {
		d.Limits.AccountPerSecond, d.Limits.AccountBurst = 1_000_000, 1_000_000
	}))
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	measure := func(form url.Values) float64 {
		begun := time.Now()
		a, err := postForm(t.Context(), c, w.URL()+"/oauth2/token", form)
		took := time.Since(begun)
		if err != nil || a.Error != "invalid_target" {
			t.Fatalf("%d %s %v", a.status, a.Error, err)
		}
		return float64(took)
	}
	for range 200 { // warm both paths up
		measure(w.form(mailer, unheard))
		measure(w.form(mailer, globex))
	}
	unknown, ungranted := make([]float64, pairs), make([]float64, pairs)
	for i := range pairs {
		a, b := w.form(mailer, unheard), w.form(mailer, globex)
		if rand.IntN(2) == 0 { // a fixed order would measure what came before
			unknown[i] = measure(a)
			ungranted[i] = measure(b)
		} else {
			ungranted[i] = measure(b)
			unknown[i] = measure(a)
		}
	}
	effect := probabilitySlower(unknown, ungranted)
	slices.Sort(unknown)
	slices.Sort(ungranted)
	t.Logf("P(unknown slower) = %.4f, medians %s and %s", effect,
		time.Duration(unknown[pairs/2]), time.Duration(ungranted[pairs/2]))
	if math.Abs(effect-0.5) > bound {
		t.Errorf("P(unknown slower than ungranted) = %.4f, beyond 0.5 ± %.2f", effect, bound)
	}
}

// probabilitySlower is Mann and Whitney's U over the number of pairs: the
// probability that a value of a is above one of b, ties counted half.
func probabilitySlower(a, b []float64) float64 {
	type sample struct {
		v   float64
		isA bool
	}
	all := make([]sample, 0, len(a)+len(b))
	for _, v := range a {
		all = append(all, sample{v, true})
	}
	for _, v := range b {
		all = append(all, sample{v, false})
	}
	slices.SortFunc(all, func(x, y sample) int {
		switch {
		case x.v < y.v:
			return -1
		case x.v > y.v:
			return 1
		}
		return 0
	})
	var ranks float64
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].v == all[i].v {
			j++
		}
		rank := float64(i+j+1) / 2 // the mean of the ranks i+1..j
		for ; i < j; i++ {
			if all[i].isA {
				ranks += rank
			}
		}
	}
	n, m := float64(len(a)), float64(len(b))
	return (ranks - n*(n+1)/2) / (n * m)
}
