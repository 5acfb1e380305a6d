package probe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
)

// undo removes what an attempt has made.
type undo struct {
	what     string // for the report
	step     Step
	values   values
	who      actor // who made it
	disguise disguise
	made     bool // a request that makes something went well, or may have
}

// safe reports a request that makes nothing (RFC 9110 section 9.2.1).
func safe(s Step) bool {
	method, _, _ := strings.Cut(s.Request, " ")
	return method == "GET" || method == "HEAD" || method == "QUERY"
}

// undo cleans up after an attempt. What can't be sent now is sent in the end;
// what can't be removed is in the report.
func (r *run) undo(ctx context.Context, u undo) {
	if checkNames(u.step.Request, known(u.values)) != nil {
		if u.made {
			r.left("%s: %s: made by %s, and no answer said what would remove it", u.what, u.step.Request, u.by())
		}
		return // it came to nothing
	}
	gone, statuses := false, []string{}
	for _, as := range u.owners() {
		a, err := r.sender.send(ctx, as.who, u.step, u.values, as.disguise.headers, as.disguise.query)
		switch {
		case err != nil && !r.sender.free:
			r.later = append(r.later, u)
			return
		case err != nil:
			r.left("%s: %s: made by %s: %s", u.what, u.step.Request, u.by(), plain(err))
			return
		case a.ok(), missing(a.status) && u.plain():
			gone = true
		}
		statuses = append(statuses, fmt.Sprint(a.status))
		if gone && u.who != nobody {
			return
		}
	}
	if !gone && u.made {
		r.left("%s: %s: made by %s: status %s", u.what, u.step.Request, u.by(), strings.Join(statuses, ", "))
	}
}

func (u undo) plain() bool {
	return u.who != nobody && len(u.disguise.headers)+len(u.disguise.query) == 0
}

func (u undo) by() string {
	if u.who == nobody {
		return "nobody (no token)"
	}
	if u.who == asB && u.disguise.name != "" {
		return u.disguise.name
	}
	return string(u.who)
}

// owner is who may own what was made.
type owner struct {
	who      actor
	disguise disguise
}

// owners are whose it can be: what was made in disguise may be either's, and what
// was made without a token too.
func (u undo) owners() []owner {
	switch {
	case u.plain():
		return []owner{{who: u.who}}
	case u.who == nobody:
		return []owner{{who: asA}, {who: asB}}
	}
	return []owner{{u.who, u.disguise}, {who: u.who}, {who: asA}}
}

func (r *run) left(text string, args ...any) {
	r.report.Left = append(r.report.Left, fmt.Sprintf(text, args...))
}

// arrived reports whether a request that got no answer may have had an effect.
func arrived(err error) bool {
	var dial *net.OpError
	return !errors.Is(err, errSpent) && !errors.Is(err, errNotSent) && (!errors.As(err, &dial) || dial.Op != "dial")
}

func known(v values) []string { return slices.Collect(maps.Keys(v)) }
