package bolt

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/tenantbroker/tenantbroker/store"
)

// idle returns how many readers wait for the next View.
func (s *Store) idle() int {
	s.readers.mu.Lock()
	defer s.readers.mu.Unlock()
	return len(s.readers.idle)
}

func readerOf(t *testing.T, s *Store) (found store.Reader) {
	t.Helper()
	if err := s.View(t.Context(), func(r store.Reader) error {
		found = r
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func putRow(t *testing.T, s *Store, key, value string) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx store.Tx) error {
		_, err := tx.Put("things", key, []byte(value), 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAReaderServesUntilTheNextCommitAndNotAfterIt(t *testing.T) {
	s := openHere(t)
	putRow(t, s, "a", "1")
	first := readerOf(t, s)
	if readerOf(t, s) != first {
		t.Error("a second View of the same state opened a reader of its own")
	}
	putRow(t, s, "b", "2")
	if s.idle() != 0 {
		t.Error("the commit has left a reader of the old state: it holds pages and shows what is gone")
	}
	if err := s.View(t.Context(), func(r store.Reader) error {
		if r == first {
			t.Error("the reader of the old state is still in use")
		}
		_, err := r.Get("things", "b")
		return err
	}); err != nil {
		t.Errorf("a View after the commit: %v", err)
	}
}

func TestAReaderThatACommitHasOvertakenIsNotKept(t *testing.T) {
	s := openHere(t)
	if err := s.View(t.Context(), func(r store.Reader) error {
		putRow(t, s, "a", "1")
		if _, err := r.Get("things", "a"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a View sees what was committed after it began: %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if s.idle() != 0 {
		t.Error("a reader of an old state is kept")
	}
}

func TestAViewInsideAViewHasAReaderOfItsOwn(t *testing.T) {
	s := openHere(t)
	readerOf(t, s)
	if err := s.View(t.Context(), func(r store.Reader) error {
		if readerOf(t, s) == r {
			t.Error("two Views share a reader")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if s.idle() != 2 {
		t.Errorf("%d readers are kept, want both", s.idle())
	}
}

func TestAReaderOfAViewThatDidNotReturnIsNotKept(t *testing.T) {
	s := openHere(t)
	func() {
		defer func() { _ = recover() }()
		_ = s.View(t.Context(), func(store.Reader) error { panic("in a View") })
	}()
	if s.idle() != 0 {
		t.Error("a reader is kept in whatever state the panic has left it")
	}
}

func TestNoReaderIsKeptWhereTheFileMayBeMappedAnew(t *testing.T) {
	s := openHere(t)
	s.mapped = readersRoom
	readerOf(t, s)
	if s.idle() != 0 {
		t.Error("a commit that grows the file would wait for this reader for ever")
	}
}

func TestScansWithinScansHaveCursorsOfTheirOwn(t *testing.T) {
	s := openHere(t)
	for _, key := range []string{"a", "b", "c"} {
		putRow(t, s, key, key)
	}
	var seen string
	if err := s.View(t.Context(), func(r store.Reader) error {
		for outer, err := range r.Scan("things", "", "") {
			if err != nil {
				return err
			}
			for inner, err := range r.Scan("things", "", "") {
				if err != nil {
					return err
				}
				row, err := r.Get("things", inner.Key)
				if err != nil {
					return err
				}
				seen += outer.Key + string(row.Value) + " "
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := "aa ab ac ba bb bc ca cb cc "; seen != want {
		t.Errorf("scans within a scan: %q, want %q", seen, want)
	}
}

func TestATableMadeByACommitIsSeenAfterIt(t *testing.T) {
	s := openHere(t)
	err := s.Update(t.Context(), func(tx store.Tx) error {
		if _, err := tx.Get("things", "a"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a table that isn't there: %v", err)
		}
		_, err := tx.Put("things", "a", []byte("1"), 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.View(t.Context(), func(r store.Reader) error {
		_, err := r.Get("things", "a")
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestCheckSeesEveryWrite writes, removes and checks rows in every order, with
// functions that fail in between.
func TestCheckSeesEveryWrite(t *testing.T) {
	s := openHere(t)
	random := rand.New(rand.NewPCG(5, 6))
	is := map[string]uint64{}
	failed := errors.New("failed")
	for round := range 400 {
		key := string(rune('a' + random.IntN(4)))
		next, fails := is[key], random.IntN(3) == 0
		err := s.Update(t.Context(), func(tx store.Tx) (err error) {
			for other := range 4 {
				key := string(rune('a' + other))
				if err := tx.Check(store.Ref{Table: "things", Key: key, Version: is[key]}); err != nil {
					t.Errorf("round %d: %s is not at version %d: %v", round, key, is[key], err)
				}
				if err := tx.Check(store.Ref{Table: "things", Key: key, Version: is[key] + 1}); !errors.Is(err, store.ErrChanged) {
					t.Errorf("round %d: %s is at a version that it never had: %v", round, key, err)
				}
			}
			switch {
			case is[key] != 0 && random.IntN(2) == 0:
				next, err = 0, tx.Delete("things", key, is[key])
			default:
				next, err = tx.Put("things", key, []byte("x"), is[key])
			}
			if err != nil {
				return err
			}
			if err := tx.Check(store.Ref{Table: "things", Key: key, Version: next}); err != nil {
				t.Errorf("round %d: a function does not see its own write: %v", round, err)
			}
			if fails {
				return failed
			}
			return nil
		})
		switch {
		case fails && errors.Is(err, failed):
		case err != nil:
			t.Fatal(err)
		default:
			is[key] = next
		}
	}
}
