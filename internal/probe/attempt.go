package probe

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

func (a Attempt) changes() bool {
	if a.Changes != nil {
		return *a.Changes
	}
	method, _, _ := strings.Cut(a.Request, " ")
	return method == http.MethodPut || method == http.MethodPatch || method == http.MethodDelete
}

// safe reports an attempt of which no request could change anything.
func (a Attempt) safe() bool {
	return safe(a.Step) && !slices.ContainsFunc(a.Then, func(s Step) bool { return !safe(s) })
}

// harmless reports an attempt that is not meant to change anything, and of which no
// request could.
func (a Attempt) harmless() bool {
	return !a.changes() && a.safe() && !slices.ContainsFunc(a.Cleanup, func(s Step) bool { return !safe(s) })
}

// MayDamage reports whether the attempt would change or delete the object, or could
// for all that is said: a request of its that is not safe (RFC 9110 section 9.2.1)
// names it, B's, or what was read, and it does not say that it changes nothing.
func (a Attempt) MayDamage() bool {
	if a.Changes != nil {
		return *a.Changes
	}
	there := []string{"id", "own"} // names of what may have been there before
	for _, s := range slices.Concat(a.Before, []Step{a.Step}, a.Then, a.Cleanup) {
		if safe(s) {
			there = slices.AppendSeq(there, maps.Keys(s.Save))
		} else if slices.ContainsFunc(there, func(name string) bool { return carries(s, name) }) {
			return true
		}
	}
	return a.changes()
}

func (a Attempt) controlled() bool { return a.Control == nil || *a.Control }
