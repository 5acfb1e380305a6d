package bolt_test

import (
	"strconv"
	"testing"

	"github.com/tenantbroker/tenantbroker/store/bolt"
)

type options = bolt.Options

func open(t testing.TB, path string) *bolt.Store {
	t.Helper()
	return openWith(t, path, func(*options) {})
}

func openWith(t testing.TB, path string, change func(*options)) *bolt.Store {
	t.Helper()
	o := options{Path: path, Writer: "w1"}
	change(&o)
	s, err := bolt.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func stringOf(n int) string { return strconv.Itoa(n) }
