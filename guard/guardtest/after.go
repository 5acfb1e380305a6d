package guardtest

import (
	"net/http"
	"strings"
	"sync"
)

// warm has A ask so often that a cache keeps the answer: some do when they are asked
// for the same a second or third time.
func (f *finder) warm(r Route, theirs object) answer {
	for range 2 {
		f.ask(r, &f.A, []object{theirs})
	}
	return f.ask(r, &f.A, []object{theirs})
}

// cached has A read first, and B right after it, also with what A was told of the
// answer's version.
func (f *finder) cached(r Route, theirs object) {
	first := f.warm(r, theirs)
	for _, in := range f.places(r) {
		if got := f.askIn(in, r, &f.B, []object{theirs}); r.gives(theirs, got) {
			f.leak(r, "read after its owner", "A's answer is given to B: %d", got.status)
		}
	}
	control := strings.ToLower(strings.Join(first.header.Values("Cache-Control"), ","))
	own := strings.Contains(control, "private") || strings.Contains(control, "no-store")
	kept := r.Method == "" || r.Method == http.MethodGet // by default; of others what says so (RFC 9110, 9.3.3)
	if kept && !own || strings.Contains(control, "public") {
		f.leak(r, "kept by a shared cache", "Cache-Control: %q", control)
	}
	for ask, told := range map[string]string{"If-None-Match": "Etag", "If-Modified-Since": "Last-Modified"} {
		value := first.header.Get(told)
		if value == "" {
			continue
		}
		for _, in := range f.places(r) {
			got := f.askIn(in, r, &f.B, []object{theirs}, func(q *http.Request) { q.Header.Set(ask, value) })
			if got.status == http.StatusNotModified {
				f.leak(r, "asked by "+ask, "B is answered %d", got.status)
			}
		}
	}
}

// ownAfter has A read first, and B right after it what is B's own: a cache that is
// asked behind the check of the id, under a key that names neither, gives it A's.
func (f *finder) ownAfter(r Route, theirs object) {
	own := f.object(f.B) // before A reads: what is made may empty a cache
	f.warm(r, theirs)
	got := f.ask(r, &f.B, []object{own})
	switch {
	case got.shows(theirs):
		f.leak(r, "own after another's", "B asks for its own and is given A's: %d %s", got.status, got.body)
	case !got.ok() || !got.shows(own):
		f.leak(r, "own", "it doesn't work for B itself, after A: %d %s", got.status, got.body)
	}
}

// atOnce has both parties read their own at the same time, again and again: what
// is shared between requests shows one the other's.
func (f *finder) atOnce(r Route) {
	objects := []object{f.object(f.A), f.object(f.B)}
	var (
		readers sync.WaitGroup
		mu      sync.Mutex
		crossed string
	)
	for reader := range 8 {
		own, other := objects[reader%2], objects[1-reader%2]
		readers.Go(func() {
			for range 25 {
				got := f.ask(r, &own.party, []object{own})
				// A list may have its own on another page by then, and another's never.
				if got.shows(other) || r.Kind == Reads && got.ok() && !got.shows(own) {
					mu.Lock()
					crossed = got.body
					mu.Unlock()
				}
			}
		})
	}
	readers.Wait()
	if crossed != "" {
		f.leak(r, "at once", "one is shown the other's: %s", crossed)
	}
}
