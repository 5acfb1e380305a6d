package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
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

// In an emergency a count that fails does not hold the revocation up, and a key
// that isn't there does.
func TestWhatARevocationWouldEnd(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		says string
		want error
	}{
		"counted":           {nil, "This would end at most 9 live tokens of 1 tenants", nil},
		"the disk fails":    {fmt.Errorf("impact: %w", client.ErrUnavailable), "can't be counted now", nil},
		"no such key":       {client.ErrNotFound, "", client.ErrNotFound},
		"not this operator": {client.ErrForbidden, "", client.ErrForbidden},
	} {
		a, _, said := testApp("", nil)
		err := a.noteImpactBefore(&wire.KeyImpact{Tokens: 9, Tenants: []wire.TenantImpact{{Tokens: 9}}}, c.err)
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) || !strings.Contains(said.String(), c.says) {
			t.Errorf("%s: %v, %q", name, err, said)
		}
	}
}

// One key in 64 begins with a dash, which is no flag: that is said.
func TestAKeyThatBeginsWithADash(t *testing.T) {
	const key = "-nKDHXCYk9CKonH4uQefxYnrXilgwaidUpfvhI2d6pc"
	a, _, said := testApp("", nil)
	if code := run(t.Context(), a, []string{"key", "revoke", key, "--reason", "r"}); code != exitUsage || !strings.Contains(said.String(), "after two dashes") {
		t.Errorf("%d %s", code, said)
	}
	a, _, said = testApp("", nil)
	if code := run(t.Context(), a, []string{"account", "credential", "remove", "sync", key, "--reason", "r"}); code != exitUsage || !strings.Contains(said.String(), "after two dashes") {
		t.Errorf("%d %s", code, said)
	}
	a, _, said = testApp("", nil)
	if code := run(t.Context(), a, []string{"account", "list", key}); code != exitUsage || strings.Contains(said.String(), "after two dashes") {
		t.Errorf("%d %s", code, said)
	}
	a, _, said = testApp("", nil)
	if code := run(t.Context(), a, []string{"--config", t.TempDir() + "/none", "key", "revoke", "--reason", "r", "--yes", "--", key}); !strings.Contains(said.String(), "login") {
		t.Errorf("%d %s", code, said)
	}
}
