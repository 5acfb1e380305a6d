package guard_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tenantbroker/tenantbroker/guard"
)

func TestWatch_IsToldOfDecisionsInItsContextOnly(t *testing.T) {
	w := newWorld(t)
	ctx, err := w.guard.Enter(t.Context(), w.Token("acme"), "")
	if err != nil {
		t.Fatal(err)
	}
	var outer, inner []string
	keep := func(to *[]string) func(guard.Decision) {
		return func(d guard.Decision) { *to = append(*to, fmt.Sprintf("%s %v", d.Reason, d.Crossing)) }
	}
	around := guard.Watch(ctx, keep(&outer))
	within := guard.Watch(around, keep(&inner))
	_ = guard.Check(ctx, resource("globex", "0"))
	_ = guard.Check(around, resource("acme", "1"))
	_ = guard.Check(within, resource("globex", "2"))
	_ = guard.Check(guard.Watch(t.Context(), keep(&inner)), resource("acme", "3"))
	if want := []string{"same_tenant false", "crossing true"}; !slices.Equal(outer, want) {
		t.Errorf("around: %q", outer)
	}
	if want := []string{"crossing true", "no_token false"}; !slices.Equal(inner, want) {
		t.Errorf("within, and without a token: %q", inner)
	}
}
