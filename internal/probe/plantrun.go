package probe

import (
	"context"
	"fmt"
	"slices"
)

// plant has B make objects in A's name, and then looks as A whether what B wrote is
// there. B's status proves nothing: a service may well take the request, and store
// it under B's own tenant.
func (r *run) plant(ctx context.Context, o *Object) error {
	var sown []*seed
	for _, p := range r.d.plantings(o) {
		sown = append(sown, r.sow(ctx, o, p))
	}
	if len(sown) == 0 {
		return nil
	}
	// Later ones of their own, so that a list that shows these would show those too.
	own, err := r.have(ctx, o, asB)
	if err != nil {
		return err
	}
	control, err := r.have(ctx, o, asA)
	if err != nil {
		return err
	}
	sights := r.sights(ctx, o, sown, own, control)
	if read := sights[0]; read.open {
		a := read.theirs
		r.add(Case{Object: o.Name, Attempt: PlantAttempt, As: "a", Request: a.line, Status: a.status, Milliseconds: milliseconds(a.took), Findings: []Finding{
			{Leak, "content", fmt.Sprintf("what B made for itself is in the answer (%d) to %s", a.status, a.line)}}})
	}
	for n, s := range sown {
		if s.ok() {
			s.ofB = r.shownToB(ctx, o, s)
		}
		c := Case{Object: o.Name, Attempt: PlantAttempt, As: s.planting.name, Request: s.line, Findings: s.judge(sights, n)}
		if s.answer != nil {
			c.Status, c.Milliseconds = s.answer.status, milliseconds(s.answer.took)
		}
		if a := sights[0].got[n]; a != nil {
			c.ReferenceStatus = a.status
		}
		r.add(c)
		if s.answer != nil && !s.ok() && slices.ContainsFunc(sights, func(at sight) bool { return at.tells(n) }) {
			r.left("%s: %s: made by %s: status %d, but A is shown it, and no id by which it could be removed", o.Name, o.Create.Request, s.planting.name, s.answer.status)
		}
	}
	for _, s := range sown {
		r.unplant(ctx, s)
	}
	return nil
}

// seed is what B made in A's name, or tried to.
type seed struct {
	planting planting
	object   *Object
	id       any // nil: not known
	marker   string
	words    []witness // nobody else has sent them
	answer   *answer   // to B; nil: none came
	failed   error     // why
	line     string
	ofB      bool // B is shown it, without naming A
	deleted  bool // as whom it was shown to, and that went well
	removed  bool // or it was named that it could not be
}

func (s *seed) ok() bool { return s.answer.ok() }

// sow makes one. What may be there and can't be removed is named.
func (r *run) sow(ctx context.Context, o *Object, p planting) *seed {
	s := &seed{planting: p, object: o, marker: randomWord()}
	secret := randomWord()
	v := values{"marker": s.marker, "witness": secret, "tenant": r.tenant(asB), "tenant_a": r.tenant(asA)}
	s.words = wordsIn(o.Create.Step, s.marker, secret, "what B made")
	s.line = r.sender.line(p.step, v, p.disguise.query)
	s.answer, s.failed = r.sender.send(ctx, asB, p.step, v, p.disguise.headers, p.disguise.query)
	switch {
	case s.failed != nil:
		if arrived(s.failed) {
			r.left("%s: %s: made by %s: no answer came, so it may be there", o.Name, o.Create.Request, p.name)
		}
		return s
	case !s.ok():
		return s
	}
	id, err := idOf(s.answer, o.Create.ID)
	if err != nil || r.sender.ofToken(fmt.Sprint(id)) {
		r.left("%s: %s: made by %s: status %d, and no id by which it could be removed", o.Name, o.Create.Request, p.name, s.answer.status)
		return s
	}
	s.id = id
	r.sown = append(r.sown, s)
	return s
}

// unplant removes what was planted, as whom it is shown to under its id: as nobody
// else, since under that id another tenant may have something of its own. What
// can't be sent now is sent in the end.
func (r *run) unplant(ctx context.Context, s *seed) {
	if s.id == nil || s.removed {
		return
	}
	why, err := r.uproot(ctx, s)
	if err != nil && !r.sender.free {
		return
	}
	if s.removed = true; err != nil {
		why = plain(err)
	}
	if why != "" {
		r.left("%s %v: made by %s: %s", s.object.Name, s.id, s.planting.name, why)
	}
}

// uproot says why it could not; "" where what was planted is gone.
func (r *run) uproot(ctx context.Context, s *seed) (why string, err error) {
	if why = "neither A nor B is shown it"; s.deleted {
		why = "" // and then the run was ended
	}
	for _, who := range []actor{asB, asA} {
		is, err := r.readAs(ctx, who, s.object, s.id)
		if err != nil || !s.subject().in(is) {
			if err != nil {
				return "", err
			}
			continue
		}
		if s.object.Delete == "" {
			return "the description has no delete", nil
		}
		answer, err := r.sender.send(ctx, who, Step{Request: s.object.Delete}, values{"id": s.id, "tenant": r.tenant(who)}, nil, nil)
		if err != nil {
			return "", err
		}
		s.deleted = s.deleted || answer.ok()
		if is, err = r.readAs(ctx, who, s.object, s.id); err != nil {
			return "", err
		}
		if !s.subject().in(is) {
			return "", nil
		}
		why = fmt.Sprintf("status %d, and it is still there", answer.status)
	}
	return why, nil
}
