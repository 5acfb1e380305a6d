package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

var reportedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// wellReport is of a broker that nobody has to look after.
func wellReport() *wire.Report {
	return &wire.Report{
		At: reportedAt, Issuer: "https://broker.example.com", Tenant: credential.System,
		Broker: &wire.BrokerReport{
			Version: "1", Store: wire.StoreReport{Healthy: true}, Audit: wire.AuditReport{Unsigned: 7, Interval: "1m0s"},
			Keys: wire.KeysReport{Ready: true, Waiting: "schedule", Keys: []wire.Key{
				{ID: "one", State: wire.KeyActive}, {ID: "two", State: wire.KeyStandby},
			}},
			Vault: &wire.VaultReport{Reachable: true, Login: "approle", LoggedIn: true, TokenExpiresAt: reportedAt.Add(time.Hour)},
		},
		SharedSecrets: &wire.Listed[wire.SharedSecretReport]{}, Leases: &wire.LeasesReport{},
	}
}

func anyTenantGrant(ends time.Time, approved string) wire.Grant {
	return wire.Grant{ID: "g_1", GrantTerms: wire.GrantTerms{
		Account: credential.MustAccountID("sweeper"), Audience: credential.MustAudience("orders"),
		AnyTenant: &wire.AnyTenant{Reason: "migration", ExpiresAt: ends, ApprovedBy: approved},
	}}
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		change func(*wire.Report)
		here   time.Duration // how far this clock is ahead
		want   severity      // "": nothing is found
		says   string
	}{
		"all well":                          {change: func(*wire.Report) {}},
		"an operator's tenant":              {change: func(r *wire.Report) { r.Broker, r.Tenant = nil, credential.MustTenant("acme") }},
		"no vault":                          {change: func(r *wire.Report) { r.Broker.Vault = nil }},
		"a clock 4 s off":                   {change: func(*wire.Report) {}, here: 4 * time.Second},
		"a clock 6 s off":                   {change: func(*wire.Report) {}, here: 6 * time.Second, want: severityWarning, says: "differ by 6s"},
		"a clock 31 s behind":               {change: func(*wire.Report) {}, here: -31 * time.Second, want: severityError, says: "differ by 31s"},
		"a full disk":                       {change: func(r *wire.Report) { r.Broker.Store = wire.StoreReport{Problem: "no space left"} }, want: severityError, says: "no space left"},
		"no key":                            {change: func(r *wire.Report) { r.Broker.Keys.Ready, r.Broker.Keys.Problem = false, "none" }, want: severityError, says: "no key can sign"},
		"a key-encryption key out of reach": {change: func(r *wire.Report) { r.Broker.Keys.KEKProblem = "permission denied" }, want: severityError, says: "permission denied"},
		"two brokers on one key":            {change: func(r *wire.Report) { r.Broker.Keys.ForeignProblem = "another broker" }, want: severityError, says: "another broker"},
		"a key out of reach":                {change: func(r *wire.Report) { r.Broker.Keys.Keys[0].Problem = "vault is down" }, want: severityError, says: "active key one can't be used"},
		"an old key gone": {change: func(r *wire.Report) {
			r.Broker.Keys.Keys = append(r.Broker.Keys.Keys, wire.Key{ID: "old", State: wire.KeyRetiring, Problem: "lost"})
		}, want: severityWarning, says: "old"},
		"no standby":          {change: func(r *wire.Report) { r.Broker.Keys.Keys = r.Broker.Keys.Keys[:1] }, want: severityWarning, says: "no standby key"},
		"verifiers that wait": {change: func(r *wire.Report) { r.Broker.Keys.Waiting, r.Broker.Keys.Missing = "uptake", 1 }, want: severityNote, says: "waits for 1"},
		"verifiers that lag": {change: func(r *wire.Report) {
			r.Broker.Keys.Waiting, r.Broker.Keys.Missing, r.Broker.Keys.Overdue = "uptake", 2, true
		}, want: severityError, says: "2 verifiers lack the next key"},
		"an overdue rotation":    {change: func(r *wire.Report) { r.Broker.Keys.Overdue = true }, want: severityError, says: "past its deadline"},
		"heads that lag":         {change: func(r *wire.Report) { r.Broker.Audit.Unsigned = backlog + 1 }, want: severityWarning, says: "not covered by signed heads"},
		"a log that can't":       {change: func(r *wire.Report) { r.Broker.Audit.Problem = "corrupt" }, want: severityError, says: "corrupt"},
		"a vault that is down":   {change: func(r *wire.Report) { r.Broker.Vault.Reachable, r.Broker.Vault.LastError = false, "refused" }, want: severityError, says: "refused"},
		"a vault that is sealed": {change: func(r *wire.Report) { r.Broker.Vault.Reachable, r.Broker.Vault.Sealed = false, true }, want: severityError, says: "vault operator unseal"},
		"a standby node":         {change: func(r *wire.Report) { r.Broker.Vault.Reachable, r.Broker.Vault.Standby = false, true }, want: severityError, says: "active node"},
		"logged out":             {change: func(r *wire.Report) { r.Broker.Vault.LoggedIn = false }, want: severityError, says: "vault.secret_id_file"},
		"a renewal that failed":  {change: func(r *wire.Report) { r.Broker.Vault.LastError = "500" }, want: severityWarning, says: "500"},
		"a secret that fails": {change: func(r *wire.Report) {
			r.SharedSecrets.Items = []wire.SharedSecretReport{{ID: "db", Failing: true, Attempts: 3, LastError: "no login"}}
		}, want: severityError, says: "fails: no login"},
		"a secret that drifted": {change: func(r *wire.Report) { r.SharedSecrets.Items = []wire.SharedSecretReport{{ID: "db", Drift: "by hand"}} }, want: severityError, says: "by hand"},
		"a secret overdue": {change: func(r *wire.Report) {
			r.SharedSecrets.Items = []wire.SharedSecretReport{{ID: "db", Overdue: true, Owner: "dba"}}
		}, want: severityError, says: "ask its owner: dba"},
		"consumers that lag": {change: func(r *wire.Report) {
			r.SharedSecrets.Items = []wire.SharedSecretReport{{ID: "db", WaitingFor: []credential.AccountID{credential.MustAccountID("slow")}}}
		}, want: severityWarning, says: "slow"},
		"a consumer that can't come": {change: func(r *wire.Report) {
			r.SharedSecrets.Items = []wire.SharedSecretReport{{ID: "db", Absent: []wire.SecretAbsent{{Account: credential.MustAccountID("gone"), Why: "account_disabled"}}}}
		}, want: severityWarning, says: "gone (account disabled)"},
		"a lease that stays": {change: func(r *wire.Report) {
			r.Leases.Failing.Items = []wire.LeaseReport{{ID: "l1", Kind: "database", Name: "orders", Tenant: credential.MustTenant("acme"), Attempts: 9, LastError: "gone"}}
		}, want: severityError, says: "in 9 attempts: gone"},
		"a lease that can't be read": {change: func(r *wire.Report) {
			r.Leases.Unreadable = &wire.Listed[wire.UnreadableLease]{Items: []wire.UnreadableLease{{ID: "l1", Tenant: credential.MustTenant("acme")}}}
		}, want: severityError, says: "brokerctl lease revoke l1"},
		"an exception": {change: func(r *wire.Report) {
			r.AnyTenant.Items = []wire.Grant{anyTenantGrant(reportedAt.Add(20*day), "second")}
		}, want: severityNote, says: "every tenant"},
		"one that ends": {change: func(r *wire.Report) {
			r.AnyTenant.Items = []wire.Grant{anyTenantGrant(reportedAt.Add(2*day), "second")}
		}, want: severityWarning, says: "ends in 2 days"},
		"one that has ended":   {change: func(r *wire.Report) { r.AnyTenant.Items = []wire.Grant{anyTenantGrant(reportedAt, "second")} }, want: severityNote, says: "has ended"},
		"one not approved":     {change: func(r *wire.Report) { r.AnyTenant.Items = []wire.Grant{anyTenantGrant(reportedAt.Add(20*day), "")} }, want: severityNote, says: "grant approve g_1"},
		"a client secret":      {change: func(r *wire.Report) { r.ClientSecrets.Items = heldFor(80 * day) }, want: severityNote, says: "1 static client secret with"},
		"one that ends soon":   {change: func(r *wire.Report) { r.ClientSecrets.Items = heldFor(13 * day) }, want: severityWarning, says: "ends in 13 days; owner: them"},
		"one about to end":     {change: func(r *wire.Report) { r.ClientSecrets.Items = heldFor(5 * time.Hour) }, want: severityError, says: "ends in 5 hours"},
		"a secret that ended":  {change: func(r *wire.Report) { r.ClientSecrets.Items = heldFor(-time.Hour) }, want: severityNote, says: "has ended"},
		"more than are listed": {change: func(r *wire.Report) { r.AnyTenant.More = 3 }, want: severityNote, says: "3 more are not listed"},
	} {
		r := wellReport()
		c.change(r)
		found := diagnose(r, reportedAt.Add(c.here))
		switch {
		case c.want == "" && len(found) > 0:
			t.Errorf("%s: found %+v", name, found)
		case c.want != "" && (len(found) != 1 || found[0].Severity != c.want || !strings.Contains(found[0].What+" "+found[0].Next, c.says)):
			t.Errorf("%s: found %+v", name, found)
		}
	}
}

func heldFor(d time.Duration) []wire.ClientSecretReport {
	return []wire.ClientSecretReport{{Account: credential.MustAccountID("legacy"), Owner: "them", Credential: "s_1", ExpiresAt: reportedAt.Add(d)}}
}

func TestDoctorTellsTheWorstFirst(t *testing.T) {
	r := wellReport()
	r.Broker.Vault.LoggedIn = false
	r.ClientSecrets.Items = append(heldFor(80*24*time.Hour), heldFor(13*24*time.Hour)...)
	r.Leases.Failing.Items = []wire.LeaseReport{{ID: "l1"}}
	var got []severity
	for _, f := range diagnose(r, reportedAt) {
		got = append(got, f.Severity)
		if f.Next == "" && f.Severity != severityNote {
			t.Errorf("%+v says nothing of what to do", f)
		}
	}
	if want := []severity{severityError, severityError, severityWarning, severityNote}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// Texts of the broker, and of Vault behind it, are safe for a terminal.
func TestReportsAreSafeForATerminal(t *testing.T) {
	a, out, _ := testApp("", nil)
	r := wellReport()
	r.Broker.Vault.LastError = "a\x1b[2Jb\u202ec"
	r.SharedSecrets.Items = []wire.SharedSecretReport{{ID: "db", Failing: true, LastError: "x\x1b]0;y\x07\nz"}}
	if err := a.printPosture(r); err != nil {
		t.Fatal(err)
	}
	if err := a.printFindings(diagnose(r, reportedAt)); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.ContainsAny(text, "\x1b\x07\u202e") || !strings.Contains(text, "last error") {
		t.Errorf("%q", text)
	}
}
