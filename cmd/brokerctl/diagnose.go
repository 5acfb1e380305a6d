package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
)

// severity says how urgent a finding is.
type severity string

const (
	severityError   severity = "error"   // it doesn't work, or is about to stop
	severityWarning severity = "warning" // it will stop, unless someone acts
	severityNote    severity = "note"    // good to know
)

// finding is one thing that somebody should look after.
type finding struct {
	Severity severity `json:"severity"`
	Area     string   `json:"area"`
	What     string   `json:"what"`
	Next     string   `json:"next,omitempty"`
}

// Bounds of what is said.
const (
	skewWarning = 5 * time.Second
	skewError   = 30 * time.Second // the leeway of tokens
	soon        = 14 * 24 * time.Hour
	urgent      = 3 * 24 * time.Hour
	backlog     = 100_000 // records not covered by signed heads
)

// diagnose turns a report into findings, the worst first.
func diagnose(r *wire.Report, now time.Time) []finding {
	d := &diagnosis{now: r.At, found: []finding{}}
	d.clock(now)
	if r.Broker != nil {
		d.store(r.Broker.Store)
		d.keys(r.Broker.Keys)
		d.vault(r.Broker.Vault)
		d.audit(r.Broker.Audit)
	}
	d.sharedSecrets(r.SharedSecrets)
	d.leases(r.Leases)
	d.anyTenant(r.AnyTenant)
	d.clientSecrets(r.ClientSecrets)
	order := []severity{severityError, severityWarning, severityNote}
	slices.SortStableFunc(d.found, func(a, b finding) int {
		return slices.Index(order, a.Severity) - slices.Index(order, b.Severity)
	})
	return d.found
}

type diagnosis struct {
	now   time.Time // the broker's
	found []finding
}

func (d *diagnosis) add(s severity, area, next, format string, args ...any) {
	d.found = append(d.found, finding{s, area, fmt.Sprintf(format, args...), next})
}

func (d *diagnosis) clock(here time.Time) {
	off := here.Sub(d.now).Abs()
	const next = "Set both clocks by NTP: tokens are refused when clocks differ by more than 30 s."
	switch {
	case off >= skewError:
		d.add(severityError, "clock", next, "the broker's clock and this one differ by %s", off.Round(time.Second))
	case off >= skewWarning:
		d.add(severityWarning, "clock", next, "the broker's clock and this one differ by %s", off.Round(time.Second))
	}
}

func (d *diagnosis) store(s wire.StoreReport) {
	if !s.Healthy {
		d.add(severityError, "store", "Look at the disk of data_dir and at the broker's log. Nothing is issued until it can be written.", "it can't be written: %s", s.Problem)
	}
}

func (d *diagnosis) audit(r wire.AuditReport) {
	switch {
	case r.Problem != "":
		d.add(severityError, "audit", "Look at the broker's log.", "the audit log can't be read: %s", r.Problem)
	case r.Unsigned > backlog:
		d.add(severityWarning, "audit", "Look in the broker's log for why heads are not signed.",
			"%d records are not covered by signed heads", r.Unsigned)
	}
}

func (d *diagnosis) keys(r wire.KeysReport) {
	if !r.Ready {
		d.add(severityError, "signing keys", "Look at it: brokerctl key list. No token is issued meanwhile.", "no key can sign: %s", r.Problem)
	}
	if r.KEKProblem != "" {
		d.add(severityError, "key-encryption key", "Is Vault well, and may the broker update encrypt/KEY and decrypt/KEY there? Until then don't restart the broker: it could not open its keys.",
			"it can't be used: %s", r.KEKProblem)
	}
	if r.ForeignProblem != "" {
		d.add(severityError, "signing keys", "Give each broker a signing.vault_key_prefix of its own: the change is an ordinary rotation. If somebody rotated by hand, two rotations from now on end this: brokerctl key rotate.",
			"%s", r.ForeignProblem)
	}
	standby := false
	for _, k := range r.Keys {
		standby = standby || k.State == wire.KeyStandby
		switch {
		case k.Problem == "":
		case k.State == wire.KeyActive || k.State == wire.KeyStandby:
			d.add(severityError, "signing keys", "Where the key lives has to be reachable, or the key replaced: brokerctl key rotate", "the %s key %s can't be used: %s", k.State, k.ID, k.Problem)
		default:
			d.add(severityWarning, "signing keys", "It still verifies. It leaves by itself.", "the %s key %s can't be used: %s", k.State, k.ID, k.Problem)
		}
	}
	if r.Ready && !standby {
		d.add(severityWarning, "signing keys", "The broker makes one by itself; its log says why it doesn't.", "no standby key is published: an emergency would have nowhere to go")
	}
	switch {
	case r.Overdue && r.Waiting == "uptake":
		d.add(severityError, "signing keys", "See which verifiers lack the next key: brokerctl key list. Those that are gone leave by themselves.",
			"the rotation due %s is past its deadline: %d verifiers lack the next key", when(r.Due), r.Missing)
	case r.Overdue && r.Ready:
		d.add(severityError, "signing keys", "Look at it: brokerctl key list", "a rotation is past its deadline")
	case r.Waiting == "uptake":
		d.add(severityNote, "signing keys", "", "the next rotation waits for %d verifiers", r.Missing)
	}
}

func (d *diagnosis) vault(r *wire.VaultReport) {
	if r == nil {
		return
	}
	what := "last error: " + r.LastError
	switch {
	case r.Sealed:
		d.add(severityError, "vault", "Unseal it: vault operator unseal", "it is sealed since %s", when(r.UnreachableSince))
	case r.Standby:
		d.add(severityError, "vault", "vault.address must lead to the active node, or to a load balancer that finds it.", "the node that answers is a standby, since %s", when(r.UnreachableSince))
	case !r.Reachable:
		d.add(severityError, "vault", "Is it running, and reachable from the broker's host? What is sealed in the broker goes on; rotation and leases wait.",
			"it does not serve since %s; %s", when(r.UnreachableSince), what)
	case !r.LoggedIn:
		d.add(severityError, "vault", loginAdvice(r.Login), "the broker is not logged in; %s", what)
	case r.LastError != "":
		d.add(severityWarning, "vault", "The broker goes on trying; its log has more.", "%s, at %s", what, when(r.LastErrorAt))
	}
}

// loginAdvice says what a login rests on.
func loginAdvice(method string) string {
	switch method {
	case "approle":
		return "Write a new secret id to vault.secret_id_file; if the error says that it was unwrapped already, destroy the old one first."
	case "kubernetes", "jwt":
		return "Does the role in Vault match the subject and the audience of the JWT in vault.jwt_file?"
	case "certificate":
		return "Does the role in Vault match the certificate in vault.cert_file, and is it still valid?"
	}
	return "Write a token that lives to vault.token_file."
}

func (d *diagnosis) sharedSecrets(l *wire.Listed[wire.SharedSecretReport]) {
	if l == nil {
		return
	}
	for _, s := range l.Items {
		area := "secret " + s.ID
		if s.Failing {
			d.add(severityError, area, "The old value stays valid. Look at it: brokerctl secret get "+s.ID, "its rotation fails: %s", s.LastError)
		}
		if s.Drift != "" {
			d.add(severityError, area, "Somebody, or Vault's own timer, changed it outside of the broker: find out who.", "it drifted: %s", s.Drift)
		}
		if s.Overdue {
			d.add(severityError, area, "Rotate it (brokerctl secret rotate "+s.ID+"), or ask its owner: "+orNobody(s.Owner), "it is past its deadline; last proven %s", orNever(s.LastProof))
		}
		if len(s.Absent) > 0 {
			d.add(severityWarning, area, "It waits until they can, since they may still use the old value. If they don't, take them off: brokerctl secret update "+s.ID+" --consumers LIST.",
				"these consumers can't say that they use the new version: %s", absentNames(s.Absent))
		}
		if len(s.WaitingFor) > 0 {
			names := make([]string, 0, len(s.WaitingFor))
			for _, account := range s.WaitingFor {
				names = append(names, account.String())
			}
			d.add(severityWarning, area, "They have to fetch the new version, or acknowledge it.", "these consumers were not seen on the new version: %s", strings.Join(names, ", "))
		}
	}
	d.more("shared secrets", l.More)
}

func (d *diagnosis) leases(r *wire.LeasesReport) {
	if r == nil {
		return
	}
	for _, l := range r.Failing.Items {
		d.add(severityError, "lease "+l.ID, "What it gave access to may still work: look at the database and at Vault. The broker goes on trying.",
			"%s %s of %s could not be ended since %s, in %d attempts: %s", l.Kind, l.Name, l.Tenant, when(l.Since), l.Attempts, l.LastError)
	}
	d.more("leases", r.Failing.More)
	if r.Unreadable == nil {
		return
	}
	for _, l := range r.Unreadable.Items {
		d.add(severityError, "lease "+l.ID, "What it gave access to ends in Vault by itself. End it now: brokerctl lease revoke "+l.ID+" --reason WHY; the broker then ends what it finds of it in Vault.",
			"its row in the store can't be read (tenant %s, account %s)", l.Tenant, l.Account)
	}
	d.more("leases", r.Unreadable.More)
}

func (d *diagnosis) anyTenant(l wire.Listed[wire.Grant]) {
	for _, g := range l.Items {
		area := "grant " + g.ID
		end := g.AnyTenant.ExpiresAt
		switch {
		case !d.now.Before(end):
			d.add(severityNote, area, "Remove it: brokerctl grant delete "+g.ID, "the exception of %s for every tenant has ended", g.Account)
		case g.AnyTenant.ApprovedBy == "":
			d.add(severityNote, area, "A second operator approves it: brokerctl grant approve "+g.ID, "the exception of %s for every tenant is not approved, and not in force", g.Account)
		case end.Sub(d.now) < urgent:
			d.add(severityWarning, area, "What still needs it then needs a grant of its own tenants, or a new exception.", "the exception of %s for every tenant ends in %s", g.Account, left(end, d.now))
		default:
			d.add(severityNote, area, "", "%s may get tokens for every tenant at %s until %s", g.Account, g.Audience, when(end))
		}
	}
	d.more("grants for every tenant", l.More)
}

func (d *diagnosis) clientSecrets(l wire.Listed[wire.ClientSecretReport]) {
	rest := l.More
	for _, s := range l.Items {
		area := "account " + s.Account.String()
		const next = "Better a key (brokerctl keygen) or its platform's identity; else a new secret before then: brokerctl account credential add"
		switch life := s.ExpiresAt.Sub(d.now); {
		case life <= 0:
			d.add(severityNote, area, "Remove it: brokerctl account credential remove", "the client secret %s has ended", s.Credential)
		case life < urgent:
			d.add(severityError, area, next, "the client secret %s ends in %s; owner: %s", s.Credential, left(s.ExpiresAt, d.now), s.Owner)
		case life < soon:
			d.add(severityWarning, area, next, "the client secret %s ends in %s; owner: %s", s.Credential, left(s.ExpiresAt, d.now), s.Owner)
		default:
			rest++
		}
	}
	if rest > 0 {
		d.add(severityNote, "client secrets", "See who: brokerctl report", "%s with a later end: each is a shared secret to get rid of", several(rest, "static client secret"))
	}
}

func (d *diagnosis) more(what string, n int) {
	if n > 0 {
		d.add(severityNote, what, "See brokerctl report -o json", "%d more are not listed", n)
	}
}

func orNobody(owner string) string {
	if owner == "" {
		return "nobody is named"
	}
	return owner
}

func orNever(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return when(t)
}
