package languages_test

import (
	"encoding/json"
	"testing"
)

// The tenant ends with its transaction, whatever became of it, and nothing but a
// token that was verified and is not over begins one. What was kept of it takes no
// statement when the connection is the next request's.
func TestATenantEndsWithItsTransaction(t *testing.T) {
	w := newWorld(t, 2)
	wants := map[string]map[string]any{
		"node": {"swallowed": "Error ", "failed": "RangeError ", "unverified": "TypeError ", "expired": "Error expired",
			"late": "Error ", "cursor": "TypeError "},
		"python": {"swallowed": "RuntimeError ", "failed": "LookupError ", "unverified": "TypeError ", "expired": "Refused expired",
			"late": "RuntimeError "},
	}
	for language, want := range wants {
		cmd := command(language, example(t, language), "testdata/transaction", "DATABASE_URL="+w.dsn())
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", language, err)
		}
		var said map[string]any
		must(t, json.Unmarshal(out, &said))
		for name, rows := range map[string]float64{"inside": perTenant, "outside": 0, "after": 0, "ended": 0} {
			want[name] = rows
		}
		for name := range want {
			if said[name] != want[name] {
				t.Errorf("%s, %s: %v, want %v", language, name, said[name], want[name])
			}
		}
	}
}
