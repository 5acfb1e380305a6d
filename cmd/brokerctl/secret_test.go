package main

import (
	"errors"
	"strings"
	"testing"
)

// What the guide lists for --set can be set: numbers, true, false and lists are
// JSON, and all else is text.
func TestMembersOfASpec(t *testing.T) {
	for text, want := range map[string]string{
		"inspect=true":                 `{"inspect":true}`,
		"inspect=false":                `{"inspect":false}`,
		`allowed_cidrs=["10.0.0.0/8"]`: `{"allowed_cidrs":["10.0.0.0/8"]}`,
		"allowed_cidrs=[]":             `{"allowed_cidrs":[]}`,
		"length=50":                    `{"length":50}`,
		"n=12345678901234567890":       `{"n":12345678901234567890}`,
		"path=tenants/acme/hmac":       `{"path":"tenants/acme/hmac"}`,
		"query=a=b":                    `{"query":"a=b"}`,
		"field=True":                   `{"field":"True"}`,
		"field=null":                   `{"field":"null"}`,
		"field=":                       `{"field":""}`,
		`field="5"`:                    `{"field":"\"5\""}`,
		`field={"a":1}`:                `{"field":"{\"a\":1}"}`,
	} {
		if got, err := readSpec(nil, "", []string{text}); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"inspect", "=true", "allowed_cidrs=[10.0.0.0/8]", `allowed_cidrs=["10.0.0.0/8"`, `allowed_cidrs=[] []`} {
		got, err := readSpec(nil, "", []string{text})
		if _, usage := errors.AsType[usageError](err); !usage || !strings.Contains(err.Error(), "--set") {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
}
