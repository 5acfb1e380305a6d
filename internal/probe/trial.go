package probe

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/unknown"
)

// trial is one attempt with one object, as everybody.
type trial struct {
	run     *run
	object  *Object
	attempt *Attempt
	target  *instance // A's
	own     *instance // B's
	saved   values    // by the steps before
	made    []glance  // what A saw of what the last chain made
	looked  bool      // A's object was looked at, and nothing was sent since
}

// disguise is how a request claims to be A's.
type disguise struct {
	name    string
	headers map[string]string
	query   url.Values
}

// disguises are all that the description names, after none.
func (t *trial) disguises() []disguise {
	all := []disguise{{name: "b"}}
	tenant := t.run.tenant(asA)
	for _, h := range t.run.d.Forge.Headers {
		all = append(all, disguise{name: "b, header " + h + " of a", headers: map[string]string{h: tenant}})
	}
	for _, q := range t.run.d.Forge.Query {
		all = append(all, disguise{name: "b, query " + q + " of a", query: url.Values{q: {tenant}}})
	}
	return all
}

func (t *trial) byID() bool { return carries(t.attempt.Step, "id") }

// alone reports whether the attempt is one request by id: only then is there the
// same for an id that nobody has.
func (t *trial) alone() bool { return t.byID() && len(t.attempt.Then) == 0 }

// compares reports whether the attempt may be made for an id that nobody has. What
// could change something is tried only with one that is certainly nobody's: under a
// number there may be a third tenant's.
func (t *trial) compares() bool {
	return t.alone() && !t.object.Shared && (t.attempt.harmless() || unknown.Bits(text(t.target.id)) >= unknown.Certain)
}

// drawn reports whether B can have nothing of its own under the id of A's object:
// where each tenant's are numbered, it can.
func (t *trial) drawn() bool {
	id := text(t.target.id)
	return !unknown.Counted(id) && id != text(t.own.id)
}

// values stand for the names, where the object in question is i.
func (t *trial) values(i *instance) values {
	v := values{
		"id": i.id, "own": t.own.id, "marker": i.marker, "other_marker": t.own.marker,
		"tenant_a": t.run.tenant(asA), "tenant_b": t.run.tenant(asB),
	}
	for name, value := range t.saved {
		v[name] = value
	}
	return v
}

// all makes the attempt in every way. An error is one that leaves nothing to
// judge.
func (t *trial) all(ctx context.Context) error {
	if err := t.before(ctx); err != nil {
		return err
	}
	if t.attempt.changes() {
		return t.change(ctx)
	}
	return t.look(ctx)
}

func (t *trial) before(ctx context.Context) error {
	t.saved = values{}
	for _, s := range t.attempt.Before {
		a, err := t.step(ctx, actor(s.As), s, t.values(t.target), disguise{})
		if err != nil {
			return err
		}
		if actor(s.As) == asA && !a.ok() {
			return fmt.Errorf("before: A gets status %d for %s", a.status, s.Request)
		}
		if a.ok() {
			if err := save(a, s, t.saved); err != nil {
				return err
			}
		}
	}
	// What was done before may be seen in the object.
	if len(t.attempt.Before) > 0 {
		return t.run.know(ctx, t.target)
	}
	return nil
}

// step sends one request, again until what it waits for is there.
func (t *trial) step(ctx context.Context, who actor, s Step, v values, d disguise) (*answer, error) {
	wait := s.Wait
	if wait == 0 {
		wait = 10 * time.Second
	}
	for end := t.run.now().Add(wait); ; {
		a, err := t.run.sender.send(ctx, who, s, v, d.headers, d.query)
		if err != nil || !a.ok() || reached(a, s.Until) || t.run.now().After(end) {
			return a, err
		}
		if err := Pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func reached(a *answer, until map[string]string) bool {
	for pointer, want := range until {
		if value, err := at(parseJSON(a.body), pointer); err != nil || fmt.Sprint(value) != want {
			return false
		}
	}
	return true
}

// Pause waits, or returns why ctx ended before.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errNotSaved = errors.New("the answer lacks a value to save")

func save(a *answer, s Step, into values) error {
	for name, pointer := range s.Save {
		value, err := at(parseJSON(a.body), pointer)
		if err != nil {
			return fmt.Errorf("%w: %s at %q", errNotSaved, name, pointer)
		}
		into[name] = value
	}
	return nil
}

// chain makes the attempt and what follows from it, as long as it is let; then
// it cleans up after itself, also where a step failed. At least one answer comes
// back, or an error. Before that, A looks whether it is shown what was made.
func (t *trial) chain(ctx context.Context, who actor, i *instance, d disguise) ([]*answer, error) {
	v := t.values(i)
	if t.attempt.plantsBy() {
		v["planted"] = randomWord()
	}
	var all []*answer
	var failed error
	made := false
	t.looked = false
	for _, s := range append([]Step{t.attempt.Step}, t.attempt.Then...) {
		a, err := t.step(ctx, who, s, v, d)
		if err != nil {
			failed, made = err, made || !safe(s) && arrived(err)
			break
		}
		all = append(all, a)
		made = made || (a.ok() || a.status >= 500) && !safe(s)
		if !a.ok() || save(a, s, v) != nil {
			break
		}
	}
	patience := t.attempt.Settle
	if i != t.target && i != t.own {
		patience = 0 // it is only looked at so that it can be removed
	}
	t.made = t.glances(ctx, v, patience)
	t.cleanUp(ctx, undo{what: t.object.Name + " " + t.attempt.Name, values: v, who: who, disguise: d, made: made})
	if shown(t.made) && who != asA {
		t.uproot(ctx, undo{what: t.object.Name + " " + t.attempt.Name, values: v, who: who, disguise: d})
	}
	return all, failed
}

func (t *trial) cleanUp(ctx context.Context, u undo) {
	for _, s := range t.attempt.Cleanup {
		u.step = s
		t.run.undo(ctx, u)
	}
}

// judged makes a case of evidence.
func (t *trial) judged(as string, e evidence) Case {
	last := e.got[len(e.got)-1]
	c := Case{
		Object: t.object.Name, Attempt: t.attempt.Name, As: as, Request: e.got[0].line,
		Status: last.status, Milliseconds: milliseconds(last.took), Findings: judge(e),
	}
	if e.nonsense != nil {
		c.NobodysMilliseconds = milliseconds(e.nonsense.took)
	}
	if len(e.reference) > 0 {
		r := e.reference[len(e.reference)-1]
		c.ReferenceStatus = r.status
		if last.ok() && r.ok() {
			c.Similarity = float64(int(similarity(last.body, r.body)*100)) / 100
		}
	}
	if worst(c.Findings) != Leak {
		c.Findings = append(c.Findings, e.doubts()...)
	}
	return c
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()/100) / 10 }
