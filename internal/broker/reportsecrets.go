package broker

import (
	"cmp"
	"context"
	"slices"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// secretsPages bounds what a report reads of shared secrets.
const secretsPages = 200 // of registry.MaxPage

// reportSecrets lists the shared secrets that an operator sees, those in
// trouble first.
func reportSecrets(ctx context.Context, m *secrets.Manager, by registry.By) (out wire.Listed[wire.SharedSecretReport], err error) {
	var all []wire.SharedSecretReport
	after := ""
	for range secretsPages {
		found, next, err := m.List(ctx, by, secrets.Filter{}, after, registry.MaxPage)
		if err != nil {
			return out, err
		}
		for i := range found {
			all = append(all, reportSecret(&found[i]))
		}
		if after = next; after == "" {
			break
		}
	}
	slices.SortStableFunc(all, func(a, b wire.SharedSecretReport) int { return cmp.Compare(calm(a), calm(b)) })
	out.Items = all
	if len(all) > registry.MaxReported {
		out.Items, out.More = all[:registry.MaxReported], len(all)-registry.MaxReported
	}
	return out, nil
}

// calm orders what somebody has to look after before the rest.
func calm(s wire.SharedSecretReport) int {
	if s.Failing || s.Overdue || s.Drift != "" || len(s.WaitingFor) > 0 || len(s.Absent) > 0 {
		return 0
	}
	return 1
}

func reportSecret(s *secrets.Status) wire.SharedSecretReport {
	out := wire.SharedSecretReport{
		ID: s.Secret.ID, Kind: s.Secret.Kind, Tenant: s.Secret.Tenant, Owner: s.Secret.Owner.String(), State: "idle",
		Overdue: s.Overdue, Drift: s.Drift, LastProof: s.ProvenAt, NextAt: s.Next,
	}
	if s.Last != nil {
		out.LastAttempt, out.LastError, out.Failing = s.Last.EndedAt, s.Last.Failed, s.Last.Failed != ""
	}
	if a := s.Attempt; a != nil {
		out.State, out.LastAttempt, out.Attempts = string(a.Step), a.StartedAt, a.Tries
		out.LastError, out.Failing = cmp.Or(a.Failed, a.Error), a.Failed != "" || a.Error != "" || a.Held
		if a.Held {
			out.LastError = cmp.Or(out.LastError, "held: somebody else has changed the value; only --force goes on")
		}
	}
	if s.Problem != "" {
		out.Failing, out.LastError = true, cmp.Or(out.LastError, s.Problem)
	}
	if s.Waiting.Late { // before the deadline it is the way of things
		out.WaitingFor = s.Waiting.Missing
	}
	for _, c := range s.Waiting.Absent {
		out.Absent = append(out.Absent, wire.SecretAbsent{Account: c.Account, Why: c.Why})
	}
	return out
}
