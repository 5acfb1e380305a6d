package probe

import "testing"

// What varies by itself, such as the id of a request, tells of no object: a digit
// is in most of these ids, and not in all.
func TestAlike(t *testing.T) {
	for name, c := range map[string]struct {
		got, none, again string
		want             bool
	}{
		"the same":                    {`{"error":"not found"}`, `{"error":"not found"}`, "", true},
		"another word":                {`{"error":"not yours"}`, `{"error":"not found"}`, "", false},
		"another word, twice":         {`{"error":"not yours"}`, `{"error":"not found"}`, `{"error":"not found"}`, false},
		"more words":                  {`{"error":"not found here"}`, `{"error":"not found"}`, `{"error":"not found"}`, false},
		"an echo":                     {`no order ord_1`, `no order ord_0`, "", true},
		"ids of requests":             {`{"id":"DuUN_o7"}`, `{"id":"U7AU1ywrrHpmg"}`, "", true},
		"one without a digit":         {`{"id":"DuUN_oTDU"}`, `{"id":"U7AU1ywrrHpmg"}`, "", false},
		"one without a digit, known":  {`{"id":"DuUN_oTDU"}`, `{"id":"U7AU1ywrrHpmg"}`, `{"id":"aB3"}`, true},
		"beside it another word":      {`{"e":"yours","id":"DuUN"}`, `{"e":"found","id":"U7AU"}`, `{"e":"found","id":"aB3"}`, false},
		"another number of words yet": {`{"id":"a b"}`, `{"id":"U7"}`, `{"id":"aB3"}`, false},
	} {
		var again *answer
		if c.again != "" {
			again = &answer{body: []byte(c.again)}
		}
		if got := alike(&answer{body: []byte(c.got)}, &answer{body: []byte(c.none)}, again, []string{"ord_1", "ord_0"}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A short id may be in another word by chance, such as a request's: there it parts
// nothing.
func TestAShortIDIsAWordOfItsOwn(t *testing.T) {
	of := func(text string) *answer { return &answer{body: []byte(text)} }
	for text, want := range map[string]bool{
		`{"error":"no 8","request":"x8bc9"}`:    true,
		`{"error":"not 8's","request":"x8bc9"}`: false,
	} {
		if got := alike(of(text), of(`{"error":"no 7","request":"qrst"}`), of(`{"error":"no 9","request":"u9w"}`), []string{"8", "7", "9"}); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
