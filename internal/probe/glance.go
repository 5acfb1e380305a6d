package probe

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// glance is what A saw, in one place, of what an attempt has made.
type glance struct {
	place  string // as it is described
	line   string
	status int
	shows  bool // the word that only this attempt has sent
	failed error
}

// plantsBy reports whether the attempt makes something that A could be shown.
func (a Attempt) plantsBy() bool { return len(a.Seen) > 0 }

// glances looks as A, at A's object, where it would see what an attempt has made;
// again for as long as is said. A place that only the answer would have
// told is left out where it did not.
func (t *trial) glances(ctx context.Context, v values, patience time.Duration) []glance {
	at := maps.Clone(v)
	at["id"], at["marker"] = t.target.id, t.target.marker
	var all []glance
	for _, request := range t.attempt.Seen {
		if checkNames(request, known(at)) != nil {
			continue
		}
		all = append(all, t.glance(ctx, request, at, patience))
	}
	return all
}

func (t *trial) glance(ctx context.Context, request string, at values, patience time.Duration) glance {
	word := newWitness("", fmt.Sprint(at["planted"]))
	for end := t.run.now().Add(patience); ; {
		a, err := t.run.sender.send(ctx, asA, Step{Request: request}, at, map[string]string{"Cache-Control": "no-cache"}, nil)
		if err != nil {
			return glance{place: request, failed: err}
		}
		g := glance{place: request, line: a.line, status: a.status, shows: word.in(a) && !strings.Contains(a.sent, word.value)}
		if g.shows || !t.run.now().Before(end) {
			return g
		}
		if err := Pause(ctx, patience/10); err != nil {
			return glance{place: request, failed: err}
		}
	}
}

func shown(all []glance) bool {
	return slices.ContainsFunc(all, func(g glance) bool { return g.shows })
}

// uproot looks whether A is still shown what somebody else has made, when that was to
// be removed: many services answer 204 to every DELETE. A removes it where A is shown
// it under the id that it was made with; under that of another place, A may have
// something of its own.
func (t *trial) uproot(ctx context.Context, u undo) {
	left := func() (place string) {
		for _, g := range t.glances(ctx, u.values, 0) {
			if g.shows {
				place = g.place
			}
			if g.shows && savedIn(g.place) {
				return place
			}
		}
		return place
	}
	at := left()
	if savedIn(at) {
		t.cleanUp(ctx, undo{what: u.what, values: u.values, who: asA, made: true})
		at = left()
	}
	if at != "" {
		t.run.left("%s: made by %s: A is still shown it (%s)", u.what, u.by(), at)
	}
}

// savedIn reports a request that names what was saved from an answer.
func savedIn(request string) bool {
	return slices.ContainsFunc(placeholder.FindAllString(request, -1), func(p string) bool { return !slices.Contains(ownNames, p[1:len(p)-1]) })
}

// open reports a place that shows A what B makes with its own object, too.
func (e evidence) open(place string) bool {
	return slices.ContainsFunc(e.madeOwn, func(g glance) bool { return g.place == place && g.shows })
}

// planted says where A is shown what somebody else has made.
func (e evidence) planted() []Finding {
	for _, g := range e.made {
		if g.shows && !e.open(g.place) {
			return []Finding{{Leak, "planted", fmt.Sprintf("what was made is A's now: A is shown it in the answer (%d) to %s", g.status, g.line)}}
		}
	}
	return nil
}

// unplanted says why nothing follows from A not being shown what was made; "" where
// one place tells that shows A what is A's own.
func (e evidence) unplanted() string {
	why := "A is not shown what it makes itself, either"
	for _, own := range e.madeByA {
		at := slices.IndexFunc(e.made, func(g glance) bool { return g.place == own.place })
		switch {
		case own.failed != nil:
			why = "A could not look: " + plain(own.failed)
		case !own.shows:
		case e.open(own.place):
			why = "A is shown what B makes with its own object, too (" + own.place + "): it can't be told what this is"
		case at < 0 && e.got[0].ok():
			why = "no answer said where A would see what was made"
		case at >= 0 && e.made[at].failed != nil:
			why = "A could not look: " + plain(e.made[at].failed)
		default:
			return ""
		}
	}
	return why
}
