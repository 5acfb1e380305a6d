package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/store"
)

func testRows(t *testing.T, m Maker) {
	s := m.New(t)
	if value, _ := get(t, s, "a"); value != "-" {
		t.Errorf("an empty store has a row %q", value)
	}
	first := put(t, s, "a", "1")
	put(t, s, "b", "")
	if value, version := get(t, s, "a"); value != "1" || version != first {
		t.Errorf("a is %q at %d, written as 1 at %d", value, version, first)
	}
	if value, version := get(t, s, "b"); value != "" || version == 0 {
		t.Errorf("an empty value reads as %q at %d", value, version)
	}
	second := put(t, s, "a", "2")
	if value, version := get(t, s, "a"); value != "2" || version != second || second == first {
		t.Errorf("a is %q at %d, written as 2 at %d", value, version, second)
	}
	update(t, s, func(tx store.Tx) error { return tx.Delete(table, "a", second) })
	if value, _ := get(t, s, "a"); value != "-" {
		t.Errorf("removed, but there: %q", value)
	}
	view(t, s, func(r store.Reader) error {
		_, err := r.Get("another", "b")
		wantErr(t, "the same key in another table", err, store.ErrNotFound)
		_, err = r.Get(table, "")
		wantErr(t, "an empty key", err, store.ErrNotFound)
		return nil
	})
}

func testCompareAndSwap(t *testing.T, m Maker) {
	s := m.New(t)
	old := put(t, s, "a", "1")
	now := put(t, s, "a", "2")
	ctx := context.Background()
	for name, fn := range map[string]func(store.Tx) error{
		"put at an old version":         func(tx store.Tx) error { _, err := tx.Put(table, "a", nil, old); return err },
		"put as new over a row":         func(tx store.Tx) error { _, err := tx.Put(table, "a", nil, 0); return err },
		"put at a version of no row":    func(tx store.Tx) error { _, err := tx.Put(table, "b", nil, now); return err },
		"remove at an old version":      func(tx store.Tx) error { return tx.Delete(table, "a", old) },
		"remove what does not exist":    func(tx store.Tx) error { return tx.Delete(table, "b", now) },
		"remove as not existing":        func(tx store.Tx) error { return tx.Delete(table, "b", 0) },
		"check an old version":          func(tx store.Tx) error { return tx.Check(store.Ref{Table: table, Key: "a", Version: old}) },
		"check that a row is not there": func(tx store.Tx) error { return tx.Check(store.Ref{Table: table, Key: "a"}) },
		"check a row that is not there": func(tx store.Tx) error { return tx.Check(store.Ref{Table: table, Key: "b", Version: now}) },
		"check the second of two": func(tx store.Tx) error {
			return tx.Check(store.Ref{Table: table, Key: "a", Version: now}, store.Ref{Table: table, Key: "a", Version: old})
		},
	} {
		wantErr(t, name, s.Update(ctx, fn), store.ErrChanged)
	}
	update(t, s, func(tx store.Tx) error {
		return tx.Check(store.Ref{Table: table, Key: "a", Version: now}, store.Ref{Table: table, Key: "b"}, store.Ref{Table: "none", Key: "b"})
	})
	if value, version := get(t, s, "a"); value != "2" || version != now {
		t.Errorf("a refused write changed the row: %q at %d", value, version)
	}
}

func testVersions(t *testing.T, m Maker) {
	s := m.New(t)
	seen := map[uint64]bool{0: true}
	note := func(version uint64) {
		t.Helper()
		if seen[version] {
			t.Errorf("version %d was given twice", version)
		}
		seen[version] = true
	}
	for range 3 {
		version := put(t, s, "a", "x")
		note(version)
		update(t, s, func(tx store.Tx) error { return tx.Delete(table, "a", version) })
		note(put(t, s, "b", "y"))
		// Versions that a failed function has seen may have been remembered.
		_ = s.Update(context.Background(), func(tx store.Tx) error {
			version, err := tx.Put(table, "c", []byte("z"), 0)
			if err == nil {
				note(version)
			}
			return errOwn
		})
	}
	update(t, s, func(tx store.Tx) error {
		first, err := tx.Put(table, "d", nil, 0)
		if err != nil {
			return err
		}
		note(first)
		second, err := tx.Put(table, "d", nil, first)
		note(second)
		return err
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = m.Reopen(t, s)
	note(put(t, s, "a", "x"))
}

func testScan(t *testing.T, m Maker) {
	s := m.New(t)
	view(t, s, func(r store.Reader) error {
		wantRows(t, "nothing", scan(t, r, "", ""))
		return nil
	})
	for _, key := range []string{"b", "a\x00x", "a", "ab", "a\x00y", "\xff", "a\xff"} {
		put(t, s, key, "1")
	}
	update(t, s, func(tx store.Tx) error { _, err := tx.Put("storetesu", "a", nil, 0); return err })
	view(t, s, func(r store.Reader) error {
		wantRows(t, "all", scan(t, r, "", ""), "a=1", "a\x00x=1", "a\x00y=1", "ab=1", "a\xff=1", "b=1", "\xff=1")
		wantRows(t, "prefix", scan(t, r, "a\x00", ""), "a\x00x=1", "a\x00y=1")
		wantRows(t, "prefix and after", scan(t, r, "a\x00", "a\x00x"), "a\x00y=1")
		wantRows(t, "after that is not there", scan(t, r, "a", "a\x00xx"), "a\x00y=1", "ab=1", "a\xff=1")
		wantRows(t, "after the prefix", scan(t, r, "a", "b"))
		wantRows(t, "after before the prefix", scan(t, r, "b", "a"), "b=1")
		wantRows(t, "after the last", scan(t, r, "", "\xff"))
		n := 0
		for _, err := range r.Scan(table, "", "") {
			if err != nil {
				return err
			}
			if n++; n == 2 {
				break
			}
		}
		if n != 2 {
			t.Errorf("stopped after %d rows", n)
		}
		return nil
	})
}

func testScanWhileWriting(t *testing.T, m Maker) {
	s := m.New(t)
	for i := range 300 { // over several pages
		put(t, s, fmt.Sprintf("k%03d", i), strings.Repeat("v", 50))
	}
	update(t, s, func(tx store.Tx) error {
		n := 0
		for row, err := range tx.Scan(table, "", "") {
			if err != nil {
				return err
			}
			n++
			if n%2 == 0 {
				if err := tx.Delete(table, row.Key, row.Version); err != nil {
					return err
				}
			} else if _, err := tx.Put(table, row.Key, []byte("w"), row.Version); err != nil {
				return err
			}
		}
		if n != 300 {
			t.Errorf("saw %d rows", n)
		}
		return nil
	})
	view(t, s, func(r store.Reader) error {
		rows := scan(t, r, "", "")
		if len(rows) != 150 || rows[0] != "k000=w" || rows[149] != "k298=w" {
			t.Errorf("%d rows left: %q", len(rows), rows)
		}
		return nil
	})
}

func testReadYourWrites(t *testing.T, m Maker) {
	s := m.New(t)
	removed, kept := put(t, s, "b", "old"), put(t, s, "d", "old")
	update(t, s, func(tx store.Tx) error {
		for _, key := range []string{"e", "a", "c"} {
			if _, err := tx.Put(table, key, []byte("new"), 0); err != nil {
				return err
			}
		}
		if err := tx.Delete(table, "b", removed); err != nil {
			return err
		}
		version, err := tx.Put(table, "d", []byte("newer"), kept)
		if err != nil {
			return err
		}
		wantRows(t, "all", scan(t, tx, "", ""), "a=new", "c=new", "d=newer", "e=new")
		wantRows(t, "after", scan(t, tx, "", "c"), "d=newer", "e=new")
		wantRows(t, "prefix", scan(t, tx, "b", ""))
		_, err = tx.Get(table, "b")
		wantErr(t, "removed", err, store.ErrNotFound)
		if row, err := tx.Get(table, "d"); err != nil || row.Version != version || string(row.Value) != "newer" {
			t.Errorf("d: %q at %d, %v", row.Value, row.Version, err)
		}
		wantErr(t, "check what was removed", tx.Check(store.Ref{Table: table, Key: "b", Version: removed}), store.ErrChanged)
		if err := tx.Check(store.Ref{Table: table, Key: "b"}, store.Ref{Table: table, Key: "d", Version: version}); err != nil {
			t.Error(err)
		}
		_, err = tx.Put(table, "b", []byte("again"), 0)
		return err
	})
	view(t, s, func(r store.Reader) error {
		wantRows(t, "after the commit", scan(t, r, "", ""), "a=new", "b=again", "c=new", "d=newer", "e=new")
		return nil
	})
}

// testLikeAMap compares random transactions with a map.
func testLikeAMap(t *testing.T, m Maker) {
	s := m.New(t)
	model := map[string]string{}
	key := rapid.StringMatching(`[abc]{1,3}`)
	rapid.Check(t, func(rt *rapid.T) {
		draft := maps.Clone(model)
		fails := rapid.Float64Range(0, 1).Draw(rt, "fails") > 0.7
		ops := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) [3]string {
			return [3]string{rapid.SampledFrom([]string{"put", "delete", "scan"}).Draw(rt, "op"), key.Draw(rt, "key"), key.Draw(rt, "value")}
		}), 0, 8).Draw(rt, "ops")
		err := s.Update(context.Background(), func(tx store.Tx) error {
			for _, op := range ops {
				row, _ := tx.Get(table, op[1])
				if string(row.Value) != draft[op[1]] {
					rt.Errorf("get %s: %q, want %q", op[1], row.Value, draft[op[1]])
				}
				var err error
				switch {
				case op[0] == "put":
					_, err = tx.Put(table, op[1], []byte(op[2]), row.Version)
					draft[op[1]] = op[2]
				case op[0] == "delete" && row.Version != 0:
					err = tx.Delete(table, op[1], row.Version)
					delete(draft, op[1])
				case op[0] == "scan":
					compare(rt, tx, draft, op[1][:1], op[2])
				}
				if err != nil {
					return err
				}
			}
			if fails {
				return errOwn
			}
			return nil
		})
		if !fails && err != nil {
			rt.Fatal(err)
		}
		if !fails {
			model = draft
		}
		if err := s.View(context.Background(), func(r store.Reader) error { compare(rt, r, model, "", ""); return nil }); err != nil {
			rt.Fatal(err)
		}
	})
}

func compare(t *rapid.T, r store.Reader, model map[string]string, prefix, after string) {
	var want, got []string
	for _, key := range slices.Sorted(maps.Keys(model)) {
		if strings.HasPrefix(key, prefix) && key > after {
			want = append(want, key+"="+model[key])
		}
	}
	for row, err := range r.Scan(table, prefix, after) {
		if err != nil {
			t.Error(err)
		}
		got = append(got, row.Key+"="+string(row.Value))
	}
	if !slices.Equal(got, want) {
		t.Errorf("scan %q after %q: got %q, want %q", prefix, after, got, want)
	}
}

func testBadKeys(t *testing.T, m Maker) {
	s := m.New(t)
	for name, row := range map[string]store.Ref{
		"no key":     {Table: table},
		"no table":   {Key: "a"},
		"a long key": {Table: table, Key: strings.Repeat("k", 1<<16)},
	} {
		err := s.Update(context.Background(), func(tx store.Tx) error {
			_, err := tx.Put(row.Table, row.Key, nil, 0)
			return err
		})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	put(t, s, "a", strings.Repeat("v", 1<<20))
	if value, _ := get(t, s, "a"); len(value) != 1<<20 {
		t.Errorf("a value of 1 MiB reads as %d bytes", len(value))
	}
}
