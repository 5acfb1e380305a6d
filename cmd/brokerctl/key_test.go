package main

import (
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func TestWhatAKeyWaitsFor(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for want, w := range map[string]*wire.KeyWait{
		"":                           nil,
		"its time, in 2d3h":          {For: wire.WaitSchedule, Due: now.Add(51*time.Hour + time.Minute)},
		"its time, in 0s":            {For: wire.WaitSchedule, Due: now.Add(-time.Hour)},
		"caches to expire, in 4m10s": {For: wire.WaitNotice, Until: now.Add(250 * time.Second)},
		"another standby key":        {For: wire.WaitStandby},
		"later":                      {For: "later"},
		"2 verifiers without it, at most 3h0m: orders (2)": {For: wire.WaitUptake, Until: now.Add(3 * time.Hour), Missing: 2,
			Lacking: []wire.KeyLacking{{Account: credential.MustAccountID("orders"), Verifiers: 2}}},
	} {
		if got := waitsFor(now, w); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	n := uint64(7)
	row := keyColumns(now).row(wire.Key{
		ID: "k", State: wire.KeyActive, PublishedAt: now.Add(-time.Hour), ActivatedAt: now.Add(-90 * time.Second), LiveTokens: &n,
		Uptake: &wire.KeyUptake{Holding: 11, Verifiers: 12},
	})
	if row[4] != "1h0m" || row[5] != "1m30s" || row[6] != "7" || row[7] != "11/12" {
		t.Errorf("%q", row)
	}
	if row := keyColumns(now).row(wire.Key{}); row[6] != "?" || row[7] != "" {
		t.Errorf("%q", row)
	}
}
