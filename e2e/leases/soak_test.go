//go:build soak

package leases

import "testing"

// One application through twenty rotations and twenty expiries in one run.
func TestSoakApplication(t *testing.T) { throughChanges(t, 20) }
