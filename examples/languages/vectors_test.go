package languages_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// vectors are the verifier's, for any language.
type vectors struct {
	KeySets map[string]json.RawMessage `json:"key_sets"`
	Vectors []vector
	raw     []byte
}

type vector struct {
	ID, Tag, Verdict, Reason, Issuer, Audience, JWKS, Token string
	Time                                                    int64
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	raw, err := os.ReadFile("../../verifier/testdata/vectors.json")
	must(t, err)
	must(t, json.Unmarshal(raw, &v))
	v.raw = raw
	return v
}

// said is what became of a vector: "" where it was accepted, by the library as its
// documentation has it, and by the example.
type said struct{ ID, Plain, Strict string }

// run returns what became of each vector; the one called version is the library's.
func run(t testing.TB, language string, doc vectors) map[string]said {
	t.Helper()
	all := make(map[string]said)
	lines := bufio.NewScanner(bytes.NewReader(output(t, language, "vectors", doc.raw)))
	for lines.Scan() {
		var s said
		must(t, json.Unmarshal(lines.Bytes(), &s))
		all[s.ID] = s
	}
	if len(all) != len(doc.Vectors)+1 || len(all) < 400 {
		t.Fatalf("%s ran %d of %d vectors", language, len(all)-1, len(doc.Vectors))
	}
	return all
}

// The examples in Node and Python reach the verdict of the Go verifier on every
// vector, those that need the rule of one tenant too; and what is refused is the
// token's fault, for which nobody is told to come back.
func TestTheExamplesReachEveryVerdict(t *testing.T) {
	doc := readVectors(t)
	for language := range commands {
		t.Run(language, func(t *testing.T) {
			all := run(t, language, doc)
			for _, v := range doc.Vectors {
				why := all[v.ID].Strict
				if (why == "") != (v.Verdict == "accept") {
					t.Errorf("%s: %q, want %s %s", v.ID, why, v.Verdict, v.Reason)
				}
				if why == "unavailable" {
					t.Errorf("%s: nobody can say", v.ID)
				}
			}
		})
	}
}

// groups of the strict vectors, by the first word of their ids.
var groups = []struct{ words, about string }{
	{"tenant", "exactly one tenant: a string in the grammar"},
	{"lookalike", "no `Tenant`, `tenants` and the like beside it"},
	{"duplicate", "no name twice, at any depth"},
	{"header kid", "no `jku`, `x5u`, `jwk`, `x5c`, `b64`, `zip`, `enc`; one good `kid`; `nonce` a string"},
	{"missing type claim", "all claims there, of the right type, `aud` one string"},
	{"cnf", "no token that is bound to a key, without a proof"},
	{"time own", "a life within the broker's ceiling; whole seconds"},
	{"form", "one spelling in base64url"},
	{"json size number", "UTF-8, whole characters, numbers that a double holds, bounded size and depth"},
}

// What the libraries let through without the strict check is in the guide, number
// by number, for the versions that it names. Another PyJWT has other numbers.
func TestTheGuideSaysWhatLibrariesLetThrough(t *testing.T) {
	doc := readVectors(t)
	raw, err := os.ReadFile("../../docs/guides/any-language.md")
	must(t, err)
	guide := string(raw)
	node, python := run(t, "node", doc), run(t, "python", doc)
	same := strings.HasPrefix(python["version"].Plain, "2.6.")
	held := 0
	row := func(about string, in func(vector) bool) {
		n, byNode, byPython := 0, 0, 0
		for _, v := range doc.Vectors {
			if !in(v) {
				continue
			}
			n++
			if (node[v.ID].Plain == "") != (v.Verdict == "accept") {
				byNode++
			}
			if (python[v.ID].Plain == "") != (v.Verdict == "accept") {
				byPython++
			}
		}
		held += n
		want := fmt.Sprintf("| %s | %d | %d | ", about, n, byNode)
		if same {
			want += fmt.Sprintf("%d |", byPython)
		}
		if !strings.Contains(guide, want) {
			t.Errorf("the guide has other numbers than %s", want)
		}
	}
	row("`core`", func(v vector) bool { return v.Tag == "core" })
	row("`strict`, all of it", func(v vector) bool { return v.Tag == "strict" })
	for _, g := range groups {
		row(g.about, func(v vector) bool {
			word, _, _ := strings.Cut(v.ID, "-")
			return v.Tag == "strict" && slices.Contains(strings.Fields(g.words), word)
		})
	}
	strict := 0
	for _, v := range doc.Vectors {
		strict += map[string]int{"strict": 1}[v.Tag]
	}
	if held != len(doc.Vectors)+strict {
		t.Errorf("the groups hold %d of %d strict vectors", held-len(doc.Vectors), strict)
	}
	for _, number := range []string{"has %d tokens", "all %d."} {
		if want := fmt.Sprintf(number, len(doc.Vectors)); !strings.Contains(guide, want) {
			t.Errorf("the guide doesn't say %q", want)
		}
	}
	for _, id := range []string{"type-exp-string", "json-utf16"} { // core, and the guide says so
		if same && python[id].Plain != "" || !strings.Contains(guide, "`"+id+"`") {
			t.Errorf("PyJWT on %s: %q; is it in the guide?", id, python[id].Plain)
		}
	}
}
