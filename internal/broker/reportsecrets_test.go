package broker

import (
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

func TestAReportTellsWhichSecretsAreInTrouble(t *testing.T) {
	at := time.Unix(1e9, 0)
	slow := []credential.AccountID{credential.MustAccountID("slow")}
	for name, c := range map[string]struct {
		status secrets.Status
		want   wire.SharedSecretReport
		calm   int
	}{
		"idle":               {secrets.Status{ProvenAt: at, Next: at}, wire.SharedSecretReport{State: "idle", LastProof: at, NextAt: at}, 1},
		"one that went well": {secrets.Status{Last: &secrets.Outcome{EndedAt: at}}, wire.SharedSecretReport{State: "idle", LastAttempt: at}, 1},
		"one that failed":    {secrets.Status{Last: &secrets.Outcome{EndedAt: at, Failed: "no"}}, wire.SharedSecretReport{State: "idle", LastAttempt: at, Failing: true, LastError: "no"}, 0},
		"under way":          {secrets.Status{Attempt: &secrets.Attempt{Step: "prove", StartedAt: at}}, wire.SharedSecretReport{State: "prove", LastAttempt: at}, 1},
		"under way again, after one that failed": {
			secrets.Status{Last: &secrets.Outcome{Failed: "no"}, Attempt: &secrets.Attempt{Step: "apply", StartedAt: at}},
			wire.SharedSecretReport{State: "apply", LastAttempt: at}, 1,
		},
		"a step that fails": {secrets.Status{Attempt: &secrets.Attempt{Step: "apply", Tries: 3, Error: "refused"}}, wire.SharedSecretReport{State: "apply", Attempts: 3, Failing: true, LastError: "refused"}, 0},
		"held":              {secrets.Status{Attempt: &secrets.Attempt{Step: "drain", Held: true}}, wire.SharedSecretReport{State: "drain", Failing: true, LastError: "held: somebody else has changed the value; only --force goes on"}, 0},
		"a problem":         {secrets.Status{Problem: "Vault's own timer"}, wire.SharedSecretReport{State: "idle", Failing: true, LastError: "Vault's own timer"}, 0},
		"drift":             {secrets.Status{Drift: "by hand"}, wire.SharedSecretReport{State: "idle", Drift: "by hand"}, 0},
		"overdue":           {secrets.Status{Overdue: true}, wire.SharedSecretReport{State: "idle", Overdue: true}, 0},
		"draining":          {secrets.Status{Waiting: secrets.Decision{Missing: slow}}, wire.SharedSecretReport{State: "idle"}, 1},
		"draining for one that can't come": {
			secrets.Status{Waiting: secrets.Decision{Missing: slow, Absent: []secrets.Absent{{Account: slow[0], Why: "account_disabled"}}}},
			wire.SharedSecretReport{State: "idle", Absent: []wire.SecretAbsent{{Account: slow[0], Why: "account_disabled"}}}, 0,
		},
		"draining for too long": {secrets.Status{Waiting: secrets.Decision{Missing: slow, Late: true}}, wire.SharedSecretReport{State: "idle", WaitingFor: slow}, 0},
	} {
		got := reportSecret(&c.status)
		if got.State != c.want.State || got.Failing != c.want.Failing || got.LastError != c.want.LastError || got.Attempts != c.want.Attempts ||
			!got.LastAttempt.Equal(c.want.LastAttempt) || !got.LastProof.Equal(c.want.LastProof) || !got.NextAt.Equal(c.want.NextAt) ||
			got.Drift != c.want.Drift || got.Overdue != c.want.Overdue || len(got.WaitingFor) != len(c.want.WaitingFor) || !slices.Equal(got.Absent, c.want.Absent) {
			t.Errorf("%s: %+v", name, got)
		}
		if calm(got) != c.calm {
			t.Errorf("%s: calm %d", name, calm(got))
		}
	}
}
