package probe

import "testing"

func TestAPathIsSaidWithoutData(t *testing.T) {
	for path, want := range map[string]string{
		"/state": "/state", "/items/0/note": "/items/*/note", "/by_mail/alice@example.com/open": "/by_mail/*/open",
		"/orders/ord_7f3a": "/orders/*", "/a/b/c/d": "/a/b/c/…", "/": "/*",
		"/abcdefghijklmnopqrstuvwxyzabcdefg": "/*", "/a~1b": "/*",
	} {
		if got := (difference{paths: []string{path}}).String(); got != "its value at "+want+" is another" {
			t.Errorf("%s: %s", path, got)
		}
	}
	if got := (difference{paths: []string{""}}).String(); got != "it reads otherwise" {
		t.Error(got)
	}
}
