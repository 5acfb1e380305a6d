package probe

import (
	"context"
	"net/http"
	"slices"
	"strings"
)

// look makes an attempt that shows something: first A, so that what is cached is
// A's, then everybody else.
func (t *trial) look(ctx context.Context) error {
	e, target := t.evidence(), t.target
	var err error
	if t.attempt.controlled() {
		if e.reference, err = t.reference(ctx, e.witnesses); err != nil {
			return err
		}
		e.madeByA = t.made
		t.ofA(e.reference)
		if err = t.warm(ctx); err != nil {
			return err
		}
		if !t.attempt.safe() { // what A itself changed is how A's object is
			if err := t.run.know(ctx, t.target); err != nil {
				return err
			}
		}
	}
	var before []Finding
	if t.attempt.controlled() && t.byID() {
		if before, err = t.watched(ctx, func() error {
			own, err := t.chain(ctx, asB, t.own, disguise{})
			if e.own == nil {
				e.own, e.madeOwn = own, t.made
			}
			return err
		}); err != nil {
			return err
		}
	}
	for _, d := range t.disguises() {
		if d.name != "b" && t.object.Shared {
			continue
		}
		each, found, err := t.lookAs(ctx, d, e)
		if err != nil {
			return err
		}
		c := t.judged(d.name, each)
		c.Findings = append(append(before, found...), c.Findings...)
		t.run.add(c)
		if t.target != target || target.damaged {
			return nil // it was changed; what was known of it is no more
		}
		if d.name == "b" {
			e.got = each.got
		}
		e.ownJudged, before = true, nil
	}
	if err := t.conditional(ctx, e); err != nil {
		return err
	}
	e.anonymous, e.got = true, nil
	found, err := t.watched(ctx, func() error {
		got, err := t.chain(ctx, nobody, t.target, disguise{})
		if e.got == nil {
			e.got, e.witnesses, e.made = got, t.target.witnesses, t.made
		}
		if err == nil && got[len(got)-1].ok() && e.nonsense == nil {
			e.nonsense, e.ids, err = t.nonsense(ctx, nobody, disguise{})
		}
		return err
	})
	if err != nil {
		return err
	}
	c := t.judged("no token", e)
	c.Findings = append(found, c.Findings...)
	t.run.add(c)
	return nil
}

// warm has A ask twice more: some caches keep an answer from the second time on
// that they are asked for it, or the third.
func (t *trial) warm(ctx context.Context) error {
	for range 2 {
		if !t.attempt.safe() {
			return nil
		}
		if _, err := t.chain(ctx, asA, t.target, disguise{}); err != nil {
			return err
		}
	}
	return nil
}

// lookAs makes the attempt as B, for an id that nobody has and for A's.
func (t *trial) lookAs(ctx context.Context, d disguise, e evidence) (evidence, []Finding, error) {
	e.got = nil
	e.entitled = d.name == "b" && t.attempt.controlled() && !t.byID() && !t.attempt.plantsBy()
	found, err := t.watched(ctx, func() error {
		none, ids, err := t.nonsense(ctx, asB, d)
		if err == nil && e.nonsense == nil {
			e.nonsense, e.ids = none, ids
		}
		if err != nil {
			return err
		}
		got, err := t.chain(ctx, asB, t.target, d)
		if e.got == nil {
			e.got, e.witnesses, e.made = got, t.target.witnesses, t.made
		}
		return err
	})
	if err != nil {
		return e, nil, err
	}
	return e, found, t.nonsenseAgain(ctx, d, &e)
}

// watched sends what B tries. Where its requests could change something, it is
// looked whether they did.
func (t *trial) watched(ctx context.Context, send func() error) ([]Finding, error) {
	if t.attempt.safe() {
		return nil, send()
	}
	return t.around(ctx, send)
}

func (t *trial) evidence() evidence {
	return evidence{
		witnesses: t.target.witnesses, ownValues: t.own.witnesses, tenant: t.run.tenant(asA),
		byID: t.byID(), drawn: t.drawn(), shared: t.object.Shared, public: t.object.Shared, plants: t.attempt.plantsBy(),
		withheld: t.alone() && !t.object.Shared && !t.compares(),
	}
}

// reference makes the attempt as A, again while it may still settle.
func (t *trial) reference(ctx context.Context, witnesses []witness) ([]*answer, error) {
	for end := t.run.now().Add(t.attempt.Settle); ; {
		all, err := t.chain(ctx, asA, t.target, disguise{})
		if err != nil {
			return nil, err
		}
		if shown(t.made) || shows(all, witnesses, false) || !t.run.now().Before(end) {
			return all, nil
		}
		if err := Pause(ctx, t.attempt.Settle/10); err != nil {
			return nil, err
		}
	}
}

// ofA judges what A was answered: nothing of B's belongs there, and no cache that
// others share may keep it.
func (t *trial) ofA(reference []*answer) {
	if t.object.Shared {
		return
	}
	last := reference[len(reference)-1]
	c := Case{Object: t.object.Name, Attempt: t.attempt.Name, As: "a", Request: reference[0].line, Status: last.status, Milliseconds: milliseconds(last.took)}
	e := evidence{got: reference, witnesses: t.own.witnesses, ownValues: t.target.witnesses}
	for _, w := range e.witnesses {
		if f, ok := e.shown(w); ok {
			c.Findings = append(c.Findings, f)
		}
	}
	for _, a := range reference {
		if sharedCacheable(a) {
			c.Findings = append(c.Findings, Finding{Suspect, "cacheable", "caches that many share may keep the answer to " + a.line + " (Cache-Control), whoever asks (Vary)"})
		}
	}
	t.run.add(c)
}

// sharedCacheable reports an answer to a request with a token that says of itself
// that a shared cache may give it to others (RFC 9111 section 3.5).
func sharedCacheable(a *answer) bool {
	if !a.ok() {
		return false
	}
	var open, closed bool
	for _, line := range a.header.Values("Cache-Control") {
		for directive := range strings.SplitSeq(strings.ToLower(line), ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch name {
			case "public", "s-maxage":
				open = true
			case "private", "no-store", "no-cache":
				closed = true
			}
		}
	}
	for _, line := range a.header.Values("Vary") {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name == "*" || strings.EqualFold(name, "Authorization") {
				closed = true
			}
		}
	}
	return open && !closed
}

// nonsense makes the same attempt for an id that nobody has, where that is sure
// enough.
func (t *trial) nonsense(ctx context.Context, who actor, d disguise) (*answer, []string, error) {
	if !t.compares() {
		return nil, nil, nil
	}
	none := *t.target
	none.id = unknownID(t.target.id)
	all, err := t.chain(ctx, who, &none, d)
	if err != nil {
		return nil, nil, err
	}
	return all[0], []string{text(t.target.id), text(none.id)}, nil
}

// nonsenseAgain asks once more for what nobody has, where the text of that answer
// differs: what differs between the two does so by itself, such as a request's id.
// What is not refused is asked for again only where that makes nothing.
func (t *trial) nonsenseAgain(ctx context.Context, d disguise, e *evidence) error {
	last := e.got[len(e.got)-1]
	if e.nonsense == nil || last.status != e.nonsense.status || last.ok() && !t.attempt.safe() || alike(last, e.nonsense, nil, e.ids) {
		return nil
	}
	var ids []string
	var err error
	e.again, ids, err = t.nonsense(ctx, asB, d)
	e.ids = append(slices.Clone(e.ids), ids...)
	return err
}

// conditional asks as B for what A has already: "not modified" would say that it
// is there, and what it is (RFC 9110 section 13.1).
func (t *trial) conditional(ctx context.Context, e evidence) error {
	if len(e.reference) != 1 || !e.reference[0].ok() || t.object.Shared {
		return nil
	}
	of := e.reference[0].header
	var headers map[string]string
	switch {
	case of.Get("ETag") != "":
		headers = map[string]string{"If-None-Match": of.Get("ETag")}
	case of.Get("Last-Modified") != "":
		headers = map[string]string{"If-Modified-Since": of.Get("Last-Modified")}
	default:
		return nil
	}
	got, err := t.chain(ctx, asB, t.target, disguise{headers: headers})
	if err != nil {
		return err
	}
	c := Case{Object: t.object.Name, Attempt: t.attempt.Name, As: "b, validator of a", Request: got[0].line, Status: got[0].status, Milliseconds: milliseconds(got[0].took)}
	if got[0].status == http.StatusNotModified && !sameValidator(e.got[0], of) {
		c.Findings = []Finding{{Leak, "etag", "304 for what A was given, and B never"}}
		// One that says so of whatever is asked for knows nothing.
		none, _, err := t.nonsense(ctx, asB, disguise{headers: headers})
		if err != nil {
			return err
		}
		if none != nil && none.status == http.StatusNotModified {
			c.Findings = []Finding{{Suspect, "etag", "304 for A's validator, whatever is asked for"}}
		}
	}
	t.run.add(c)
	return nil
}

// sameValidator reports whether B's own answer has what A's had: then both have
// the same, such as an empty list.
func sameValidator(own *answer, of http.Header) bool {
	if !own.ok() {
		return false
	}
	if tag := of.Get("ETag"); tag != "" {
		return strings.TrimPrefix(own.header.Get("ETag"), "W/") == strings.TrimPrefix(tag, "W/")
	}
	return own.header.Get("Last-Modified") == of.Get("Last-Modified")
}
