package probe

import (
	"regexp"
	"slices"
	"strings"
)

// resemblance from which on two answers are worth a look.
const resembling = 0.9

// fewLeaves is below how many values a resemblance says nothing.
const fewLeaves = 3

// similarity is the share of values, by path, that two JSON answers have in
// common, from 0 to 1; of others, whether they are the same.
func similarity(a, b []byte) float64 {
	one, two := parseJSON(a), parseJSON(b)
	if one == nil || two == nil {
		if len(a) > 0 && string(a) == string(b) {
			return 1
		}
		return 0
	}
	left, right := map[string]string{}, map[string]string{}
	leaves(one, "", left)
	leaves(two, "", right)
	same := 0
	for path, value := range left {
		if other, ok := right[path]; ok && other == value {
			same++
		}
	}
	if all := len(left) + len(right) - same; all > 0 {
		return float64(same) / float64(all)
	}
	return 1
}

// resembles reports an answer that could be A's, where nothing tells whose it is.
func (e evidence) resembles(last *answer) bool {
	if !last.ok() || len(e.reference) == 0 || !e.byID {
		return false
	}
	for _, w := range e.ownValues {
		if w.in(last) {
			return false
		}
	}
	reference := e.reference[len(e.reference)-1]
	if !reference.ok() || similarity(last.body, reference.body) < resembling {
		return false
	}
	if document := parseJSON(last.body); document != nil {
		count := map[string]string{}
		leaves(document, "", count)
		return len(count) >= fewLeaves
	}
	return len(last.body) > 64
}

// varying is what differs from answer to answer: ids, times, numbers.
var varying = regexp.MustCompile(`[0-9A-Za-z_-]*[0-9][0-9A-Za-z_:.+-]*`)

// alike reports whether two answers say the same but for what varies, which
// includes the ids that they may echo. again, unless nil, is another answer like
// b: words that differ between these two vary too.
func alike(a, b, again *answer, ids []string) bool {
	one, other := words(a, ids), words(b, ids)
	third := other
	if again != nil {
		third = words(again, ids)
	}
	if len(one) != len(other) || len(other) != len(third) {
		return false
	}
	for i := range one {
		if other[i] == third[i] && varying.ReplaceAllString(one[i], "#") != varying.ReplaceAllString(other[i], "#") {
			return false
		}
	}
	return true
}

// word is a word, or what is between two.
var word = regexp.MustCompile(`[0-9A-Za-z_:.+-]+|[^0-9A-Za-z_:.+-]+`)

func words(a *answer, ids []string) []string {
	text := string(a.body)
	for _, id := range ids {
		if len(id) >= strongLength {
			text = strings.ReplaceAll(text, id, "#")
		}
	}
	all := word.FindAllString(text, -1)
	for i, w := range all {
		if slices.Contains(ids, w) { // a short one may be a part of another word by chance
			all[i] = "#"
		}
	}
	return all
}
