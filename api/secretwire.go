package api

import (
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// declaredSecret is what an operator declares, as rotation/secrets knows it.
// Its rules are checked there.
func declaredSecret(in wire.SecretTerms) (secrets.Secret, error) {
	s := secrets.Secret{
		ID: in.ID, Kind: in.Kind, Spec: in.Spec, Tenant: in.Tenant, Shared: in.Shared, Owner: in.Owner,
		Consumers: in.Consumers, Description: in.Description, Pair: in.Pair,
	}
	var err error
	duration := func(field, text string) secrets.Duration {
		var d secrets.Duration
		if text != "" && err == nil {
			if bad := d.UnmarshalText([]byte(text)); bad != nil {
				err = registry.Invalid(field, "%v", bad)
			}
		}
		return d
	}
	s.MaxAge = duration("max_age", in.MaxAge)
	s.DrainDeadline = duration("drain_deadline", in.DrainDeadline)
	s.Overlap = duration("overlap", in.Overlap)
	if in.Schedule != nil {
		s.Schedule = secrets.Schedule{
			Every: duration("schedule.every", in.Schedule.Every), Cron: in.Schedule.Cron, Zone: in.Schedule.Zone,
			Jitter: duration("schedule.jitter", in.Schedule.Jitter),
		}
		if w := in.Schedule.Window; w != nil {
			s.Schedule.Window = &secrets.Window{Days: w.Days, From: w.From, To: w.To}
		}
	}
	return s, err
}

func wireTerms(s secrets.Secret) wire.SecretTerms {
	out := wire.SecretTerms{
		ID: s.ID, Kind: s.Kind, Spec: s.Spec, Tenant: s.Tenant, Shared: s.Shared, Owner: s.Owner, Consumers: s.Consumers,
		Description: s.Description, MaxAge: s.MaxAge.String(), DrainDeadline: s.DrainDeadline.String(), Overlap: s.Overlap.String(), Pair: s.Pair,
	}
	if sc := s.Schedule; sc.Every != 0 || sc.Cron != "" {
		out.Schedule = &wire.SecretSchedule{Cron: sc.Cron, Zone: sc.Zone}
		if sc.Every != 0 {
			out.Schedule.Every = sc.Every.String()
		}
		if sc.Jitter != 0 {
			out.Schedule.Jitter = sc.Jitter.String()
		}
		if sc.Window != nil {
			out.Schedule.Window = &wire.SecretWindow{Days: sc.Window.Days, From: sc.Window.From, To: sc.Window.To}
		}
	}
	return out
}

func wireSecret(st secrets.Status) wire.Secret {
	s := st.Secret
	out := wire.Secret{
		SecretTerms: wireTerms(s), CreatedAt: s.CreatedAt, CreatedBy: s.CreatedBy, UpdatedAt: s.UpdatedAt, Version: s.Version,
		Status: wire.SecretStatus{
			Current: st.Version, RotatedAt: st.LastOK, ProvenAt: st.ProvenAt, Overdue: st.Overdue, Next: st.Next,
			Drift: st.Drift, DriftAt: st.DriftAt, Problem: st.Problem, Uptake: []wire.SecretUptake{},
		},
	}
	status := &out.Status
	if d := st.Waiting; d.Action == secrets.Wait {
		status.Waiting = &wire.SecretWait{For: string(d.For), Until: d.Until, Consumers: d.Missing, Late: d.Late}
		for _, c := range d.Absent {
			status.Waiting.Absent = append(status.Waiting.Absent, wire.SecretAbsent{Account: c.Account, Why: c.Why})
		}
	}
	if a := st.Attempt; a != nil {
		status.Step, status.Since = string(a.Step), a.Since
		status.Attempt = wireAttempt(a.Nonce, a.New.Version, a.Cause, a.StartedAt, a.Journal)
		status.Attempt.Outcome, status.Attempt.Error, status.Attempt.Tries = "running", a.Error, a.Tries
		if a.Failed != "" {
			status.Attempt.Error = a.Failed
		}
	}
	if l := st.Last; l != nil {
		status.Last = wireAttempt(l.Nonce, l.Version, l.Cause, l.StartedAt, l.Journal)
		status.Last.EndedAt, status.Last.Outcome, status.Last.Error = l.EndedAt, "succeeded", l.Failed
		if l.Failed != "" {
			status.Last.Outcome = "failed"
		}
	}
	if out.Consumers == nil {
		out.Consumers = []credential.AccountID{} // of one that can't be read
	}
	for _, u := range st.Uptake {
		status.Uptake = append(status.Uptake, wire.SecretUptake{Account: u.Account, Version: u.Version, At: u.At, How: string(u.How)})
	}
	return out
}

func wireAttempt(id string, version uint64, c secrets.Cause, started time.Time, journal []secrets.Entry) *wire.SecretAttempt {
	out := &wire.SecretAttempt{
		ID: id, Version: version, Scheduled: c.Scheduled, By: c.By, Reason: c.Reason, Forced: c.Force, StartedAt: started,
		Journal: []wire.SecretEntry{},
	}
	for _, e := range journal {
		out.Journal = append(out.Journal, wire.SecretEntry{At: e.At, Step: string(e.Step), What: string(e.What), Note: e.Note})
	}
	return out
}

func wirePlan(p secrets.Plan, started bool) wire.SecretsPlan {
	out := wire.SecretsPlan{Digest: p.Digest, Started: started, Items: []wire.SecretPlanItem{}}
	for _, i := range p.Items {
		out.Items = append(out.Items, wire.SecretPlanItem{
			ID: i.Secret.ID, Kind: i.Secret.Kind, Tenant: i.Secret.Tenant, Shared: i.Secret.Shared, Current: i.Version,
			After: i.After, Held: i.Held,
		})
	}
	return out
}
