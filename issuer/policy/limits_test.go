package policy

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// numbers are claims with a list of so many numbers.
func numbers(t *testing.T, n int) map[string]any {
	t.Helper()
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint(i)
	}
	return map[string]any{"claims": claims(t, `{"l":[`+strings.Join(list, ",")+`]}`).value()}
}

// What costs too much is refused for its cost, long before its time is up.
func TestCostIsLimited(t *testing.T) {
	program, err := compile(Credential, `claims.l.all(a, claims.l.all(b, a + b >= 0))`)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := program.ContextEval(t.Context(), numbers(t, 40)); err != nil {
		t.Errorf("1,600 steps: %v", err)
	}
	if _, _, err := program.ContextEval(t.Context(), numbers(t, 200)); err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Errorf("40,000 steps: %v", err)
	}
}

// An evaluation whose time is up stops within its loops.
func TestEvaluationIsInterrupted(t *testing.T) {
	program, err := compile(Credential, `claims.l.all(a, a >= 0)`)
	if err != nil {
		t.Fatal(err)
	}
	vars := numbers(t, 200)
	if _, _, err := program.ContextEval(t.Context(), vars); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := program.ContextEval(over, vars); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("200 steps: %v", err)
	}
}
