package probe

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Verdict is what became of one case.
type Verdict string

// The verdicts, the worst first.
const (
	Leak         Verdict = "leak"         // evidence that something crossed
	Suspect      Verdict = "suspect"      // somebody should look; not evidence
	Inconclusive Verdict = "inconclusive" // what was answered proves nothing
	Clean        Verdict = "clean"
)

// Finding is what stands behind a verdict. It shows no value of an answer.
type Finding struct {
	Verdict Verdict `json:"verdict"`
	Kind    string  `json:"kind"` // content, tenant, existence, etag, changed, resemblance, cacheable …
	Text    string  `json:"text"`
}

// witness is a value that only the owner of an object has.
type witness struct {
	name   string // what it is, for the report
	value  string
	strong bool // long enough not to be somewhere by chance
}

// strongLength is from how many characters on a value is nowhere by chance.
const strongLength = 8

func newWitness(name, value string) witness {
	return witness{name: name, value: value, strong: len(value) >= strongLength}
}

// in reports whether an answer shows the witness, in its body, as text or as
// JSON means it, or in a header.
func (w witness) in(a *answer) bool {
	if w.value == "" {
		return false
	}
	documents := parseLines(a.body)
	if document := parseJSON(a.body); document != nil {
		documents = []any{document}
	}
	var meant []string
	for _, document := range documents {
		texts(document, &meant)
	}
	if !w.strong {
		return slices.Contains(meant, w.value)
	}
	if strings.Contains(string(a.body), w.value) || slices.ContainsFunc(meant, func(s string) bool { return strings.Contains(s, w.value) }) {
		return true
	}
	for _, values := range a.header {
		if slices.ContainsFunc(values, func(s string) bool { return strings.Contains(s, w.value) }) {
			return true
		}
	}
	return false
}

// names reports whether an answer names a tenant, as a word of its own.
func names(a *answer, tenant string) bool {
	word := regexp.MustCompile(`(?:\A|[^A-Za-z0-9_.-])` + regexp.QuoteMeta(tenant) + `(?:\z|[^A-Za-z0-9_-])`)
	return word.Match(a.body)
}

// evidence is what one case is judged by.
type evidence struct {
	got       []*answer // of one attempt and what followed from it, in order
	reference []*answer // the same as A; nil: none was made
	own       []*answer // the same as B with its own object; nil: none was made
	ownJudged bool      // own was judged with another case
	nonsense  *answer   // the same, as whoever asked, with an id that nobody has; nil: none was made
	again     *answer   // nonsense once more, where its text differs from what was got; nil: none was made
	witnesses []witness // of A's object
	ownValues []witness // of B's
	withheld  bool      // nonsense was not made, since somebody could have had that id
	made      []glance  // what A saw of what was made
	madeByA   []glance  // of what A made itself
	madeOwn   []glance  // of what B made with its own object
	plants    bool      // something is made that A could be shown
	tenant    string    // A's
	byID      bool      // the request names the object
	drawn     bool      // its id was, so that B has nothing of its own under it
	shared    bool      // everybody may have what is asked for
	public    bool      // everybody may read the object
	anonymous bool
	entitled  bool     // B asks for what is its own: it should get it
	ids       []string // A's object's, and that which nobody has
}

// judge says what an answer to somebody else shows of A's object.
func judge(e evidence) []Finding {
	last := e.got[len(e.got)-1]
	if e.shared {
		return nil // everybody may read it
	}
	found := e.planted()
	for _, w := range e.witnesses {
		if f, ok := e.shown(w); ok {
			found = append(found, f)
		} else if f, ok := e.shownAside(w); ok {
			found = append(found, f)
		}
	}
	if e.byID && !last.ok() && e.namesTenant() {
		f := Finding{Leak, "tenant", "the refusal names the tenant whose object it is"}
		if e.withheld && !e.anonymous { // perhaps each refusal does
			f.Verdict = Suspect
		}
		found = append(found, f)
	}
	if f, ok := e.existence(last); ok && len(found) == 0 {
		found = append(found, f)
	}
	if len(found) == 0 && e.resembles(last) {
		found = append(found, Finding{Suspect, "resemblance", "the answer resembles A's, and shows nothing of the asker's own"})
	}
	if len(found) == 0 && e.anonymous && last.ok() && !e.public {
		found = append(found, Finding{Suspect, "open", fmt.Sprintf("status %d without a token: is it for everybody (shared: true)?", last.status)})
	}
	return found
}

// bHas reports a value that is in B's object as well.
func (e evidence) bHas(w witness) bool {
	return slices.ContainsFunc(e.ownValues, func(o witness) bool { return o.value == w.value })
}

// shown looks for a value in every answer whose request did not carry it: an
// echo tells nothing. That an id which nobody has is answered with it too excuses
// a short value only: a random one is not there by chance, and a route or a cache
// that ignores the id shows A's object to whoever asks for anything.
func (e evidence) shown(w witness) (Finding, bool) {
	if e.bHas(w) {
		return Finding{}, false // B has the same
	}
	sent := ""
	for _, a := range e.got {
		sent += a.sent + "\n" // what an earlier request carried, a later answer may echo
		if strings.Contains(sent, w.value) || !w.in(a) || !w.strong && e.nonsense != nil && w.in(e.nonsense) {
			continue
		}
		if !w.strong {
			return Finding{Suspect, "content", fmt.Sprintf("%s is in the answer to %s, and is too short to be evidence", w.name, a.line)}, true
		}
		return Finding{Leak, "content", fmt.Sprintf("%s is in the answer (%d) to %s", w.name, a.status, a.line)}, true
	}
	return Finding{}, false
}

// shownAside looks for a value where B asked for its own object, and for one that
// nobody has: those requests carried nothing of A's, not even the id.
func (e evidence) shownAside(w witness) (Finding, bool) {
	if !w.strong || e.bHas(w) {
		return Finding{}, false
	}
	var aside []*answer
	if e.nonsense != nil {
		aside = append(aside, e.nonsense)
	}
	if !e.ownJudged {
		aside = append(aside, e.own...)
	}
	for _, a := range aside {
		if !strings.Contains(a.sent, w.value) && w.in(a) {
			return Finding{Leak, "content", fmt.Sprintf("%s is in the answer (%d) to %s, which asks for another", w.name, a.status, a.line)}, true
		}
	}
	return Finding{}, false
}

// shows reports whether the last of some answers shows an object by what no request
// of theirs carried; or also by that, such as the id, which may be an echo.
func shows(all []*answer, witnesses []witness, echoes bool) bool {
	sent := sentBy(all)
	return slices.ContainsFunc(witnesses, func(w witness) bool {
		return (echoes || !strings.Contains(sent, w.value)) && w.in(all[len(all)-1])
	})
}

// bland reports whether A's answer and B's, each about its own, say the same but for
// what they were asked with: then there is nothing of an object in them.
func (e evidence) bland() bool {
	if len(e.own) == 0 {
		return false
	}
	of, own := contents(e.reference[len(e.reference)-1]), contents(e.own[len(e.own)-1])
	sentOf, sentOwn := sentBy(e.reference), sentBy(e.own)
	for path, value := range of {
		other, both := own[path]
		asked := carried(sentOf, value, e.witnesses) && carried(sentOwn, other, e.ownValues)
		if !both || value != other && !asked {
			return false
		}
	}
	return len(of) == len(own)
}

// carried reports whether a value was in a request. A short one may be by chance, so
// it has to be the object's as well.
func carried(sent, value string, of []witness) bool {
	known := len(value) >= strongLength || slices.ContainsFunc(of, func(w witness) bool { return w.value == value })
	return known && strings.Contains(sent, value)
}

func sentBy(all []*answer) string {
	var sent strings.Builder
	for _, a := range all {
		sent.WriteString(a.sent + "\n")
	}
	return sent.String()
}

func (e evidence) namesTenant() bool {
	last := e.got[len(e.got)-1]
	return !strings.Contains(last.sent, e.tenant) && names(last, e.tenant) && (e.nonsense == nil || !names(e.nonsense, e.tenant))
}

// existence compares with the answer for an id that nobody has. A status that differs
// tells only where that one is "not found": then it is known to have been looked for.
func (e evidence) existence(last *answer) (Finding, bool) {
	none := e.nonsense
	if none == nil || undecided(last.status) || undecided(none.status) {
		return Finding{}, false
	}
	if last.ok() && !e.drawn && !e.anonymous {
		return Finding{}, false // its own object under the same number, perhaps; the witnesses tell
	}
	switch {
	case last.status == none.status && (alike(last, none, e.again, e.ids) || last.ok() && e.again == nil):
		return Finding{}, false // or nothing tells what varies by itself
	case last.status == none.status:
		return Finding{Suspect, "existence", "the answer differs from that for an id that nobody has, in its text"}, true
	case !missing(none.status):
		return Finding{}, false // it may be refused for its form
	case last.ok():
		return Finding{Leak, "existence", fmt.Sprintf("status %d for A's, and %d for an id that nobody has: it is not looked whose it is", last.status, none.status)}, true
	}
	return Finding{Leak, "existence", fmt.Sprintf("status %d, and %d for an id that nobody has: ids can be tried", last.status, none.status)}, true
}

// undecided is a status that says nothing of the object.
func undecided(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusUnauthorized
}

func missing(status int) bool { return status == http.StatusNotFound || status == http.StatusGone }

// doubts says why a case that shows nothing proves nothing either.
func (e evidence) doubts() []Finding {
	doubt := func(text string, args ...any) []Finding {
		return []Finding{{Inconclusive, "control", fmt.Sprintf(text, args...)}}
	}
	last := e.got[len(e.got)-1]
	switch {
	case last.status == http.StatusTooManyRequests || last.status >= 500:
		return doubt("the service did not decide (status %d)", last.status)
	case last.cut:
		return doubt("the answer is longer than limits.body, also unpacked, or it does not unpack")
	case !e.anonymous && last.status == http.StatusUnauthorized:
		return doubt("the service does not accept B's token")
	}
	if e.reference != nil && !e.shared {
		r := e.reference[len(e.reference)-1]
		if !r.ok() {
			return doubt("A itself gets status %d here", r.status)
		}
		if why := e.unplanted(); e.plants && why != "" {
			return doubt("%s", why)
		}
		if !e.plants && !shows(e.reference, e.witnesses, true) {
			return doubt("the answer to A itself shows nothing of A's object")
		}
		// A refusal tells itself from what A is answered, whatever that shows.
		if last.ok() && !e.plants && !shows(e.reference, e.witnesses, false) && !e.bland() {
			return doubt("the answer to A itself shows of A's object what it was asked with, and nothing else that is known")
		}
	}
	if e.entitled && !last.ok() {
		return doubt("B gets status %d here, though nothing of A's is asked for", last.status)
	}
	if e.own != nil && !e.anonymous {
		if o := e.own[len(e.own)-1]; !o.ok() {
			return doubt("B gets status %d even for its own object", o.status)
		}
	}
	return nil
}
