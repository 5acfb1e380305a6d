package probe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/recovered"
)

// Config is what a run needs. Description and both tokens are required.
type Config struct {
	Description    *Description
	TokenA, TokenB TokenSource
	Transport      http.RoundTripper // nil: one of its own
	Now            func() time.Time  // nil: time.Now
}

// run is one run.
type run struct {
	d      *Description
	sender *sender
	now    func() time.Time
	made   []*instance // in order of creation, by whomever
	sown   []*seed     // what B made in A's name
	later  []undo      // what could not be sent while it was tried
	report *Report
}

// Run tries everything once. What it made it removes, also when ctx ends.
//
// Errors: ErrUnreachable, where the service gave no answer at all; ErrCredentials;
// those of the token sources. What fails later is in the report, as inconclusive.
func Run(ctx context.Context, c Config) (*Report, error) {
	if c.Description == nil || c.TokenA == nil || c.TokenB == nil {
		return nil, errors.New("probe: a description and two tokens are required")
	}
	if len(c.Description.Objects) == 0 {
		return nil, errors.New("probe: nothing to try")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	a, err := c.TokenA(ctx)
	if err != nil {
		return nil, fmt.Errorf("probe: token of a: %w", err)
	}
	b, err := c.TokenB(ctx)
	if err != nil {
		return nil, fmt.Errorf("probe: token of b: %w", err)
	}
	if err := distinct(a, b, c.Description); err != nil {
		return nil, err
	}
	s, err := newSender(c)
	if err != nil {
		return nil, err
	}
	defer s.http.CloseIdleConnections()
	d := c.Description
	r := &run{d: d, sender: s, now: c.Now, report: &Report{Service: d.Service, BaseURL: d.BaseURL, Started: c.Now().UTC().Truncate(time.Second)}}
	began := c.Now()
	unreachable := r.everything(ctx)
	r.report.Milliseconds = c.Now().Sub(began).Milliseconds()
	r.report.Requests = s.sent
	r.report.conclude()
	return r.report, unreachable
}

// everything tries all, and removes what was made, however it ends.
func (r *run) everything(ctx context.Context) (unreachable error) {
	defer r.cleanUp(ctx)
	limited, cancel := context.WithTimeout(ctx, r.d.Limits.Duration)
	defer cancel()
	for i := range r.d.Objects {
		o := &r.d.Objects[i]
		err := recovering(func() error { return r.object(limited, o) })
		if errors.Is(err, ErrUnreachable) && len(r.report.Cases) == 0 {
			return err
		}
		if err != nil {
			r.untried(o, err)
		}
	}
	return nil
}

// recovering makes an error of a panic, so that the rest is tried, and what was made
// is removed and reported. It says nothing of the panic's value.
func recovering(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the probe itself failed: %s", recovered.Text(p))
		}
	}()
	return f()
}

func (r *run) tenant(who actor) string {
	if who == asA {
		return r.d.Tenants.A.Tenant.String()
	}
	return r.d.Tenants.B.Tenant.String()
}

// object tries everything with one kind of object.
func (r *run) object(ctx context.Context, o *Object) error {
	own, err := r.have(ctx, o, asB)
	if err != nil {
		return err
	}
	target, err := r.have(ctx, o, asA)
	if err != nil {
		return err
	}
	if o.Find != nil && fmt.Sprint(own.id) == fmt.Sprint(target.id) && !o.Shared {
		r.add(Case{Object: o.Name, Attempt: "find", As: "b", Request: o.Find.Request, Findings: []Finding{
			{Suspect, "found", "A and B find an object under the same id: both numbers alike, or one object for both"}}})
	}
	for i := range o.Try {
		if target.damaged {
			if target, err = r.have(ctx, o, asA); err != nil {
				return err
			}
		}
		t := &trial{run: r, object: o, attempt: &o.Try[i], target: target, own: own}
		if err := recovering(func() error { return t.all(ctx) }); err != nil {
			r.add(Case{Object: o.Name, Attempt: o.Try[i].Name, As: "b", Request: o.Try[i].Request, Findings: []Finding{
				{Inconclusive, "failed", plain(err)}}})
		}
		target = t.target
		// Under ids that each tenant counts for itself, B changed its own.
		if t.attempt.changes() && text(own.id) == text(target.id) {
			if own, err = r.have(ctx, o, asB); err != nil {
				return err
			}
		}
	}
	if err := recovering(func() error { return r.plant(ctx, o) }); err != nil {
		r.unplanted(o, err)
	}
	return r.afterwards(ctx, target)
}

// unplanted says of what B would have made in A's name that it proves nothing.
func (r *run) unplanted(o *Object, err error) {
	for _, p := range r.d.plantings(o) {
		if !slices.ContainsFunc(r.report.Cases, func(c Case) bool { return c.Object == o.Name && c.Attempt == PlantAttempt && c.As == p.name }) {
			r.add(Case{Object: o.Name, Attempt: PlantAttempt, As: p.name, Request: p.step.Request, Findings: []Finding{{Inconclusive, "not_tried", plain(err)}}})
		}
	}
}

// afterwards looks at A's object once more: something may have changed it that
// was not meant to. What, it can't tell, so this accuses nobody.
func (r *run) afterwards(ctx context.Context, target *instance) error {
	if target.damaged {
		return nil
	}
	c := Case{Object: target.object.Name, Attempt: "afterwards", As: "a", Request: target.object.Read}
	became, err := r.differs(ctx, target)
	switch {
	case err != nil:
		c.Findings = []Finding{{Inconclusive, "failed", plain(err)}}
	case became.any():
		c.Findings = []Finding{{Suspect, "changed", "A's " + target.object.Name + " is not as it was: " + became.String() + "; no attempt was seen to change it"}}
	}
	r.add(c)
	return nil
}

// untried says of an object's attempts that they were not made.
func (r *run) untried(o *Object, err error) {
	tried := make(map[string]bool)
	for _, c := range r.report.Cases {
		if c.Object == o.Name {
			tried[c.Attempt] = true
		}
	}
	why := []Finding{{Inconclusive, "not_tried", plain(err)}}
	for _, t := range o.Try {
		if !tried[t.Name] {
			r.add(Case{Object: o.Name, Attempt: t.Name, As: "b", Request: t.Request, Findings: why})
		}
	}
	r.unplanted(o, err)
	if !tried["afterwards"] { // or an object that was lost behind the last attempt would look clean
		r.add(Case{Object: o.Name, Attempt: "afterwards", As: "a", Request: o.Read, Findings: why})
	}
}

// cleanUp removes what was made, the newest first. It does so too where the run
// was ended.
func (r *run) cleanUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), CleanupTime)
	defer cancel()
	r.sender.free = true
	for _, u := range r.later {
		r.undo(ctx, u)
	}
	for _, s := range r.sown {
		r.unplant(ctx, s)
	}
	for n := len(r.made) - 1; n >= 0; n-- {
		i := r.made[n]
		what := fmt.Sprintf("%s %v of %s", i.object.Name, i.id, r.tenant(i.owner))
		if i.object.Delete == "" {
			r.report.Left = append(r.report.Left, what+": the description has no delete")
			continue
		}
		answer, err := r.sender.send(ctx, i.owner, Step{Request: i.object.Delete}, values{"id": i.id, "tenant": r.tenant(i.owner)}, nil, nil)
		switch {
		case err != nil:
			r.report.Left = append(r.report.Left, what+": "+plain(err))
		case !answer.ok() && !missing(answer.status):
			r.report.Left = append(r.report.Left, fmt.Sprintf("%s: status %d", what, answer.status))
		}
	}
}

func (r *run) add(c Case) {
	c.Verdict = worst(c.Findings)
	r.report.Cases = append(r.report.Cases, c)
}

// plain is an error for the report.
func plain(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "the time is over (limits.duration or limits.timeout)"
	}
	return strings.TrimPrefix(err.Error(), "probe: ")
}
