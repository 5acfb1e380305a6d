package recovered_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/recovered"
)

const secret = "tb1.the-secret"

type order struct{ note string }

func TestText_SaysWhatAndWhereAndNoValue(t *testing.T) {
	var none *order
	var anything any = secret
	var few []int
	for want, f := range map[string]func(){
		"string in ":                            func() { panic(secret) },
		"*errors.errorString in ":               func() { panic(errors.New(secret)) },
		"recovered_test.order in ":              func() { panic(order{secret}) },
		"nil pointer dereference in ":           func() { _ = none.note },
		"interface {} is string, not int in ":   func() { few[0] = anything.(int) }, //nolint:errcheck // it panics
		"index out of range [7] with length 0 ": func() { few[len(secret)/2] = 1 },
	} {
		said := text(f)
		if !strings.Contains(said, want) || strings.Contains(said, secret) {
			t.Errorf("%q, want %q", said, want)
		}
		if !strings.Contains(said, "TestText_SaysWhatAndWhereAndNoValue") || !strings.Contains(said, "(recovered_test.go:") {
			t.Errorf("%q is no place", said)
		}
	}
	if said := recovered.Text("x"); said != "string" {
		t.Errorf("without a panic: %q", said)
	}
}

func text(f func()) (said string) {
	defer func() {
		if p := recover(); p != nil {
			said = recovered.Text(p)
		}
	}()
	f()
	return ""
}
