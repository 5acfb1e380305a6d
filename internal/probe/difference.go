package probe

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// difference is what is no longer as an object's owner knew it.
type difference struct {
	gone  bool
	paths []string // of values that are others now, sorted
}

func (d difference) any() bool { return d.gone || len(d.paths) > 0 }

func (d difference) overlaps(other difference) bool {
	return d.gone && other.gone || slices.ContainsFunc(d.paths, func(p string) bool { return slices.Contains(other.paths, p) })
}

func (d difference) String() string {
	switch {
	case d.gone:
		return "it is gone"
	case len(d.paths) == 0:
		return ""
	case d.paths[0] == "":
		return "it reads otherwise"
	}
	return "its value at " + schematic(d.paths[0]) + " is another"
}

// memberName is what a schema would call a member. Others, such as addresses and
// ids, are data.
var memberName = regexp.MustCompile(`\A[A-Za-z_]{1,32}\z`)

// maxShown is how many members of a path are said.
const maxShown = 3

// schematic is a path without what may be data: "*" for such members, and for
// items of lists.
func schematic(path string) string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	short := ""
	for i, part := range parts {
		if i == maxShown {
			return short + "/…"
		}
		if !memberName.MatchString(part) {
			part = "*"
		}
		short += "/" + part
	}
	return short
}

// differs looks at an object as its owner.
func (r *run) differs(ctx context.Context, i *instance) (difference, error) {
	now, err := r.read(ctx, i)
	switch {
	case err != nil:
		return difference{}, err
	case missing(now.status):
		return difference{gone: true}, nil
	case !now.ok():
		return difference{}, fmt.Errorf("its owner gets status %d when looking at it", now.status)
	}
	return changed(i.seen, contents(now)), nil
}

// changed are the paths at which there is not what was seen.
func changed(seen, is map[string]string) difference {
	var d difference
	for _, path := range slices.Sorted(maps.Keys(seen)) {
		if value, ok := is[path]; !ok || value != seen[path] {
			d.paths = append(d.paths, path)
		}
	}
	return d
}

// forget leaves out from now on what changes by itself.
func (i *instance) forget(d difference) {
	for _, path := range d.paths {
		delete(i.seen, path)
	}
}

// maxAge bounds how old a second object is let become before it is tried with.
const maxAge = 5 * time.Second

// around looks at A's object right before and right after something is sent that
// may change it. A change right after is a leak where it shows with a second
// object too, that has become as old as the first was: objects also change by
// themselves, from "in progress" to "done". What had changed before is suspect.
func (t *trial) around(ctx context.Context, send func() error) ([]Finding, error) {
	found, err := t.steady(ctx)
	if err != nil {
		return nil, err
	}
	if err := send(); err != nil {
		return nil, err
	}
	t.looked = false
	became, err := t.run.differs(ctx, t.target)
	switch {
	case err != nil:
		return append(found, Finding{Inconclusive, "control", plain(err)}), nil
	case !became.any():
		t.looked = true
		return found, nil
	}
	t.target.damaged = true
	return append(found, t.again(ctx, became, send)), nil
}

// steady sees to it that A's object is as it was known, and says where it was not.
func (t *trial) steady(ctx context.Context) ([]Finding, error) {
	if err := t.intact(ctx); err != nil || t.looked {
		return nil, err
	}
	is, err := t.run.differs(ctx, t.target)
	if err != nil || !is.any() {
		return nil, err
	}
	if t.target.forget(is); is.gone {
		t.target.damaged = true
		if err := t.intact(ctx); err != nil {
			return nil, err
		}
	}
	return []Finding{{Suspect, "changed", "A's " + t.object.Name + ": " + is.String() + ", and nothing was sent right before: does it change by itself?"}}, nil
}

// again tries with a second object what has changed a first one.
func (t *trial) again(ctx context.Context, became difference, send func() error) Finding {
	what := "A's " + t.object.Name + ": " + became.String()
	if t.object.Create == nil {
		return Finding{Leak, "changed", what} // there may be no second one
	}
	age := min(t.run.now().Sub(t.target.born), maxAge)
	unsure := func(err error) Finding {
		return Finding{Inconclusive, "changed", what + "; and it could not be tried again: " + plain(err)}
	}
	second, err := t.run.have(ctx, t.object, asA)
	if err != nil {
		return unsure(err)
	}
	t.target = second
	young := second.seen
	if err := Pause(ctx, age); err != nil {
		return unsure(err)
	}
	if err := t.run.know(ctx, second); err != nil {
		return unsure(err)
	}
	second.forget(changed(young, second.seen))
	if err := send(); err != nil {
		return unsure(err)
	}
	t.looked = false
	is, err := t.run.differs(ctx, second)
	if err != nil {
		return unsure(err)
	}
	second.damaged = is.any()
	if !is.overlaps(became) {
		return Finding{Suspect, "changed", what + ", right after; and not when it was tried again: does it change by itself?"}
	}
	return Finding{Leak, "changed", what}
}
