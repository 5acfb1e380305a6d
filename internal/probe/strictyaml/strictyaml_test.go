package strictyaml_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/probe/strictyaml"
)

var limits = strictyaml.Limits{Bytes: 1 << 18, Nodes: 1000, Depth: 10, Keys: 50}

type target struct {
	Name string `yaml:"name"`
	Body any    `yaml:"body"`
}

func TestDecode(t *testing.T) {
	var got target
	if err := strictyaml.Decode([]byte("name: x # said\nbody: {a: [1, two]}"), limits, &got); err != nil {
		t.Fatal(err)
	}
	if got.Name != "x" || fmt.Sprint(got.Body) != "map[a:[1 two]]" {
		t.Errorf("%+v", got)
	}
}

func TestRefused(t *testing.T) {
	for name, k := range map[string]struct{ text, want string }{
		"nothing":               {"", "nothing is in it"},
		"no YAML":               {"a: [", "yaml"},
		"two documents":         {"name: x\n---\nname: y", "more than one document"},
		"a field of another":    {"nmae: x", "nmae"},
		"an anchor":             {"body: &a x", "anchors"},
		"an alias":              {"name: &a x\nbody: *a", "anchors"},
		"an alias of itself":    {"body: &a [*a]", "anchors"},
		"an alias as a key":     {"name: x\nbody: {*a : 1}", ""},
		"a merge":               {"body: {<<: {a: 1}}", "merges"},
		"a key twice":           {"body: {a: 1, a: 2}", "twice"},
		"a key twice, quoted":   {"body: {a: 1, \"a\": 2}", "twice"},
		"a key that is a list":  {"body: {[a]: 1}", "neither text nor a number"},
		"a key that is nothing": {"body: {? : 1, ? : 2}", "twice"},
	} {
		if err := strictyaml.Decode([]byte(k.text), limits, new(target)); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: %v, want %q", name, err, k.want)
		}
	}
}

func TestAliasesCountAsWhatTheyStandFor(t *testing.T) {
	aliases := limits
	aliases.Aliases = true
	for name, k := range map[string]struct {
		text string
		fits bool
	}{
		"an alias":              {"name: &a x\nbody: [*a, *a]", true},
		"a merge":               {"name: x\nbody: {a: &a {b: 1}, c: {<<: *a}}", true},
		"one within itself":     {"body: &a [*a]", false},
		"more than the values":  {"body: [&a [" + strings.Repeat("1,", 300) + "], *a, *a, *a]", false},
		"fewer than the values": {"body: [&a [" + strings.Repeat("1,", 300) + "], *a, *a]", true},
		"aliases of aliases":    {bomb(), false},
	} {
		err := strictyaml.Decode([]byte(k.text), aliases, new(target))
		if k.fits && err != nil || !k.fits && !errors.Is(err, strictyaml.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBounds(t *testing.T) {
	keys := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "k%d: 1, ", i)
		}
		return "body: {" + b.String() + "}"
	}
	// The document, its mapping and the key body are nodes too.
	for name, k := range map[string]struct{ fits, over string }{
		"bytes": {"body: x #" + strings.Repeat("x", limits.Bytes-9), "body: x #" + strings.Repeat("x", limits.Bytes-8)},
		"nodes": {"body: [" + strings.Repeat("1,", limits.Nodes-4) + "]", "body: [" + strings.Repeat("1,", limits.Nodes-3) + "]"},
		"depth": {"body: " + strings.Repeat("[", limits.Depth-1) + strings.Repeat("]", limits.Depth-1), "body: " + strings.Repeat("[", limits.Depth) + strings.Repeat("]", limits.Depth)},
		"keys":  {keys(limits.Keys), keys(limits.Keys + 1)},
	} {
		if err := strictyaml.Decode([]byte(k.fits), limits, new(target)); err != nil {
			t.Errorf("%s at the bound: %v", name, err)
		}
		if err := strictyaml.Decode([]byte(k.over), limits, new(target)); !errors.Is(err, strictyaml.ErrTooLarge) {
			t.Errorf("%s beyond the bound: %v", name, err)
		}
	}
}

// Each of these takes the decoder alone seconds to minutes: it must not see them.
func TestWhatIsSlowToDecodeIsRefusedBefore(t *testing.T) {
	var different strings.Builder
	for i := 0; different.Len() < limits.Bytes-100; i++ {
		fmt.Fprintf(&different, "%x: ,", i)
	}
	generous := strictyaml.Limits{Bytes: limits.Bytes, Nodes: 20_000, Depth: 40, Keys: 200}
	for name, k := range map[string]struct{ text, want string }{
		"keys that are compared each with each": {"body: {" + different.String() + "}", "200 keys"},
		"one key again and again":               {strings.Repeat("a:\n #x\n", limits.Bytes/7-1), "200 keys"},
		"lists in lists":                        {"body: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "deeper than 40"},
		"aliases of aliases":                    {bomb(), "anchors and aliases"},
	} {
		if err := strictyaml.Check([]byte(k.text), generous); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: %v, want %q", name, err, k.want)
		}
	}
}

func bomb() string {
	text := "body:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		text += fmt.Sprintf("  a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return text
}

// FuzzDecode: whatever comes in, it is read or refused soon.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: x\nbody: {a: [1, two]}"))
	f.Add([]byte("body: &a [*a]"))
	f.Add([]byte(bomb()))
	f.Add([]byte(strings.Repeat("a:\n #x\n", 2000)))
	f.Fuzz(func(t *testing.T, data []byte) {
		began := time.Now()
		err := strictyaml.Decode(data, limits, new(target))
		if took := time.Since(began); took > 30*time.Second {
			t.Fatalf("%s, %v", took, err)
		}
	})
}
