package probe

import (
	"context"
	"slices"
	"strings"
	"time"
)

// look is one place where A sees what is its own.
type look struct {
	step   Step
	settle time.Duration
	one    bool // by id
}

// looks are the object's own route, and of its attempts each that lists or
// searches by one request that changes nothing.
func (o *Object) looks() []look {
	all := []look{{step: Step{Request: o.Read}, one: true}}
	for _, a := range o.Try {
		alone := len(a.Before)+len(a.Then)+len(a.Until) == 0
		of := slices.ContainsFunc([]string{"id", "own", "other_marker", "tenant_b"}, func(name string) bool { return carries(a.Step, name) })
		if alone && !of && a.safe() && !a.changes() && a.controlled() {
			all = append(all, look{step: a.Step, settle: a.Settle})
		}
	}
	return all
}

// each reports whether there is an answer for each object, and not one for all.
func (l look) each() bool { return l.one || carries(l.step, "marker") }

// sight is what A saw in one place.
type sight struct {
	line   string
	failed error
	proves bool      // A is shown its own there
	theirs *answer   // to A, about what B made for itself
	open   bool      // it shows that
	got    []*answer // to A, about each seed; nil: it could not be asked for
	shown  []bool    // which of these show it
}

// subject is what may be shown.
type subject struct {
	id     any
	marker string
	words  []witness
}

func (i *instance) subject() subject {
	words := slices.DeleteFunc(slices.Clone(i.given), func(w witness) bool { return w.value == text(i.id) })
	return subject{i.id, i.marker, words}
}

func (s *seed) subject() subject { return subject{s.id, s.marker, s.words} }

// in reports whether an answer shows a word that the request did not carry. An id
// tells nothing here: each tenant may count its own.
func (s subject) in(a *answer) bool {
	return a != nil && slices.ContainsFunc(s.words, func(w witness) bool { return !strings.Contains(a.sent, w.value) && w.in(a) })
}

// sights looks as A in every place; the first is the object's own route.
func (r *run) sights(ctx context.Context, o *Object, sown []*seed, own, control *instance) []sight {
	all := make([]sight, 0, len(o.Try)+1)
	for _, l := range o.looks() {
		all = append(all, r.sight(ctx, l, sown, own.subject(), control.subject()))
	}
	return all
}

func (r *run) sight(ctx context.Context, l look, sown []*seed, own, control subject) sight {
	s := sight{line: l.step.Request, got: make([]*answer, len(sown)), shown: make([]bool, len(sown))}
	a, err := r.settled(ctx, l, control)
	if err != nil {
		s.failed = err
		return s
	}
	s.proves = control.in(a)
	of := func(x subject) (*answer, error) {
		if l.each() {
			return r.lookAs(ctx, asA, l, x)
		}
		return a, nil
	}
	if s.theirs, s.failed = of(own); s.failed != nil {
		return s
	}
	s.open = own.in(s.theirs)
	for n, x := range sown {
		if l.one && x.id == nil {
			continue
		}
		if s.got[n], s.failed = of(x.subject()); s.failed != nil {
			return s
		}
		s.shown[n] = x.subject().in(s.got[n])
	}
	return s
}

// settled looks as A for its own, again while it may still settle: what was made
// before it is there by then.
func (r *run) settled(ctx context.Context, l look, control subject) (*answer, error) {
	for end := r.now().Add(l.settle); ; {
		a, err := r.lookAs(ctx, asA, l, control)
		if err != nil || control.in(a) || !r.now().Before(end) {
			return a, err
		}
		if err := Pause(ctx, l.settle/10); err != nil {
			return nil, err
		}
	}
}

func (r *run) lookAs(ctx context.Context, who actor, l look, x subject) (*answer, error) {
	v := values{"marker": x.marker, "tenant": r.tenant(who), "tenant_a": r.tenant(asA), "tenant_b": r.tenant(asB)}
	if x.id != nil {
		v["id"] = x.id
	}
	return r.sender.send(ctx, who, l.step, v, map[string]string{"Cache-Control": "no-cache"}, nil)
}

// shownToB looks as B, as A does, until one place shows what was made.
func (r *run) shownToB(ctx context.Context, o *Object, s *seed) bool {
	for _, l := range o.looks() {
		if l.one && s.id == nil {
			continue
		}
		if a, err := r.lookAs(ctx, asB, l, s.subject()); err == nil && s.subject().in(a) {
			return true
		}
	}
	return false
}
