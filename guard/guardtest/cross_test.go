package guardtest_test

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
)

// kit is what a service's own test would write.
func kit(t *testing.T, s *sample) guardtest.Kit {
	t.Helper()
	issuer := guardtest.NewIssuer(t)
	g, err := guard.New(guard.Config{Verifier: issuer.Verifier(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.notes, s.cache = make(map[string]*note), make(map[string][]byte)
	party := func(tenant string) guardtest.Party {
		raw := issuer.Token(tenant)
		return guardtest.Party{Tenant: tenant, Token: func() string { return raw }}
	}
	return guardtest.Kit{
		Handler: s.handler(g), A: party("a"), B: party("b"),
		Create: func(_ testing.TB, p guardtest.Party, marker string) string {
			s.mu.Lock()
			defer s.mu.Unlock()
			id := s.next()
			s.notes[id] = &note{ID: id, Text: marker, tenant: credential.MustTenant(p.Tenant)}
			clear(s.cache) // a write empties it, as many do
			return id
		},
		Read: guardtest.Route{Name: "read", Path: "/notes/{id}"},
		Routes: []guardtest.Route{
			{Name: "summary", Path: "/notes/{id}/summary"},
			{Name: "by path", Path: "/t/{tenant}/notes/{id}"},
			{Name: "list", Kind: guardtest.Lists, Path: "/notes"},
			{Name: "search", Kind: guardtest.Lists, Path: "/notes?q={marker}"},
			{Name: "filtered", Kind: guardtest.Lists, Path: "/notes?of={id}"},
			{Name: "batch", Kind: guardtest.Batches, Method: http.MethodPost, Path: "/notes/batch", Body: `{"ids":[{id}]}`},
			{Name: "create", Kind: guardtest.Creates, Method: http.MethodPost, Path: "/notes", Body: `{"id":"{id}","text":"{marker}"}`},
			{Name: "make", Kind: guardtest.Creates, Method: http.MethodPost, Path: "/notes", Body: `{"text":"{marker}"}`},
			{Name: "update", Kind: guardtest.Changes, Method: http.MethodPut, Path: "/notes/{id}", Body: `{"text":"{marker}"}`},
			{Name: "empty", Kind: guardtest.Removes, Method: http.MethodPost, Path: "/notes/remove", Body: `{"ids":[{id}]}`},
			{Name: "remove", Kind: guardtest.Removes, Method: http.MethodDelete, Path: "/notes/{id}"},
		},
	}
}

func TestAnApplicationWithoutALeakIsNotAccused(t *testing.T) {
	guardtest.Cross(t, kit(t, &sample{}))
}

// What looks like a leak and is none.
func TestALookAlikeIsNotAccused(t *testing.T) {
	for _, alike := range []string{"cache by id", "no to all changes", "shared in a tenant", "batch all or none", "a customer is kept", "whatever was there", "nothing to remove"} {
		t.Run(alike, func(t *testing.T) { guardtest.Cross(t, kit(t, &sample{alike: alike})) })
	}
}

// also are routes that a leak shows at too.
var also = map[string][]string{
	"public":           {"filtered", "by path", "list", "search", "summary"},
	"list":             {"filtered", "search"},
	"header":           {"empty", "filtered", "search", "remove", "make", "create", "summary"},
	"parameter":        {"empty", "filtered", "search", "update", "remove", "make", "create", "summary"},
	"told in a header": {"remove", "update", "summary"},
	"error":            {"summary", "update", "remove"},
	"shared list":      {"filtered"},
	"count":            {"filtered"},
	"no guard":         {"filtered"},
}

// Each leak, alone, is found where it is.
func TestEachLeakIsFound(t *testing.T) {
	for leak, want := range map[string][]string{
		"read":          {"read, another tenant", "read, read after its owner", "read, an id that exists"},
		"list":          {"list, another tenant"},
		"search":        {"search, another tenant"},
		"batch":         {"batch, another tenant"},
		"remove all":    {"empty, changed by another"},
		"batch last":    {"batch, another tenant"},
		"batch cache":   {"batch, read after its owner"},
		"batch error":   {"batch, an id that exists"},
		"filter count":  {"filtered, an id that exists"},
		"name taken":    {"make, an id that exists", "create, an id that exists"},
		"update":        {"update, another tenant", "update, changed by another"},
		"remove":        {"remove, another tenant", "remove, changed by another"},
		"silent delete": {"remove, changed by another"},
		"header":        {"read, header org", "list, header org", "update, header org"},
		"parameter":     {"read, parameter tenant", "list, parameter tenant"},
		"member":        {"update, member customer", "update, changed by another"},
		"shared":        {"read, at once"},
		"shared list":   {"list, at once", "search, at once"},
		"cache":         {"read, read after its owner"},
		"bare cache":    {"summary, own after another's"},

		"second cache":    {"summary, read after its owner"},
		"error in a text": {"read, an id that exists"},

		"etag":             {"read, asked by If-None-Match"},
		"error":            {"read, an id that exists"},
		"change error":     {"update, an id that exists", "remove, an id that exists"},
		"public":           {"read, kept by a shared cache"},
		"silent update":    {"update, changed by another"},
		"told in a header": {"read, another tenant"},
		"path":             {"by path, another tenant in its place"},
		"open path":        {"by path, without a token", "by path, another tenant in its place"},
		"move":             {"update, member customer"},
		"plant":            {"make, member customer"},
		"count":            {"search, an id that exists"},
		"overwrite":        {"create, changed by another"},
		"taken":            {"create, an id that exists"},
		"no guard":         {"list, without a token", "search, without a token"},
	} {
		t.Run(leak, func(t *testing.T) {
			var found []string
			for _, f := range kit(t, &sample{leak: leak}).Find(t) {
				found = append(found, f.String())
			}
			for _, w := range want {
				if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, w+":") }) {
					t.Errorf("not found: %s; found\n%s", w, strings.Join(found, "\n"))
				}
			}
			for _, f := range found {
				route, _, _ := strings.Cut(f, ",")
				if !slices.ContainsFunc(append(want, also[leak]...), func(w string) bool { return strings.HasPrefix(w, route) }) {
					t.Errorf("another route is accused: %s", f)
				}
			}
		})
	}
}

// A route that doesn't work for its own tenant would prove nothing.
func TestARouteThatDoesNotWorkIsToldOf(t *testing.T) {
	k := kit(t, &sample{})
	k.Routes = append(k.Routes, guardtest.Route{Name: "export", Kind: guardtest.Lists, Path: "/export"})
	found := k.Find(t)
	if len(found) == 0 || !strings.HasPrefix(found[len(found)-1].String(), "export, own:") {
		t.Errorf("%v", found)
	}
}

// Neither would one that works for the one tenant only.
func TestARouteThatDoesNotWorkForTheOtherTenantIsToldOf(t *testing.T) {
	k := kit(t, &sample{})
	k.Routes = []guardtest.Route{{Name: "of a", Path: "/t/a/notes/{id}"}}
	found := k.Find(t)
	if len(found) != 1 || !strings.HasPrefix(found[0].String(), "of a, own: it doesn't work for B itself") {
		t.Errorf("%v", found)
	}
}

// Nor does a search that finds nothing, as one whose index is written later, though
// it repeats what was looked for.
func TestASearchThatFindsNothingIsToldOf(t *testing.T) {
	found := kit(t, &sample{alike: "late index"}).Find(t)
	if len(found) != 1 || !strings.HasPrefix(found[0].String(), "search, own: it finds nothing") {
		t.Errorf("%v", found)
	}
}
