package probe

import (
	"fmt"
	"net/http"
)

// judge says of the nth of what was planted whether it is A's now. What accuses is
// that A is shown what B wrote, in a place that does not show A everything.
func (s *seed) judge(sights []sight, n int) []Finding {
	for _, at := range sights {
		if at.tells(n) {
			return []Finding{{Leak, "planted", fmt.Sprintf("what B made is A's now: A is shown it in the answer (%d) to %s", at.got[n].status, at.got[n].line)}}
		}
	}
	doubt := func(text string, args ...any) []Finding {
		return []Finding{{Inconclusive, "control", fmt.Sprintf(text, args...)}}
	}
	switch {
	case s.answer == nil:
		return []Finding{{Inconclusive, "failed", plain(s.failed)}}
	case s.answer.status == http.StatusUnauthorized:
		return doubt("the service does not accept B's token")
	case s.answer.status == http.StatusTooManyRequests || s.answer.status < http.StatusBadRequest && !s.ok() || s.answer.status >= http.StatusInternalServerError:
		return doubt("the service did not decide (status %d)", s.answer.status)
	case !s.ok():
		return nil // refused, where B may make one of its own
	}
	if why := unseen(sights, n); why != "" {
		return doubt("%s", why)
	}
	if !s.ofB {
		return doubt("status %d, and neither A nor B is shown what was made", s.answer.status)
	}
	return nil
}

// tells reports a place that does not show A everything, and shows A the nth.
func (at sight) tells(n int) bool { return at.shown[n] && !at.open }

// unseen says why nothing follows from A not being shown the nth; "" where it does.
func unseen(sights []sight, n int) string {
	why := "the answer has no id, and no attempt lists what is A's: it can't be looked for"
	for _, at := range sights {
		switch {
		case at.failed != nil:
			why = "A could not look: " + plain(at.failed)
		case at.got[n] == nil:
		case at.open:
			why = "A is shown what B makes for itself, too (" + at.line + "): it can't be told whose this is"
		case !at.proves:
			why = "A is not shown its own object either (" + at.line + ")"
		default:
			return ""
		}
	}
	return why
}
