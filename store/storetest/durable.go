package storetest

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/store"
)

func testReopen(t *testing.T, m Maker) {
	s := m.New(t)
	version := put(t, s, "a", "1")
	appendRecords(t, s, acme, 3, noon)
	for range 3 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = m.Reopen(t, s)
		if value, now := get(t, s, "a"); value != "1" || now != version {
			t.Errorf("a is %q at %d", value, now)
		}
		appendRecords(t, s, acme, 1, noon)
	}
	if records := VerifyLog(t, s); len(records) != 6 {
		t.Errorf("%d records", len(records))
	}
}

func testSnapshot(t *testing.T, m Maker) {
	s := m.New(t)
	version := put(t, s, "a", "1")
	appendRecords(t, s, acme, 300, noon)
	if err := once(s, "jti", "a", noon, noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var copied bytes.Buffer
	if err := s.Snapshot(context.Background(), &copied); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "2")
	restored := m.Restore(t, &copied)
	if value, now := get(t, restored, "a"); value != "1" || now != version {
		t.Errorf("restored a is %q at %d", value, now)
	}
	wantErr(t, "restored once", once(restored, "jti", "a", noon, noon.Add(time.Hour)), store.ErrReplayed)
	appendRecords(t, restored, acme, 1, noon)
	if records := VerifyLog(t, restored); len(records) != 301 {
		t.Errorf("%d records", len(records))
	}
	wantErr(t, "a writer that fails", s.Snapshot(context.Background(), failingWriter{}), errOwn)
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errOwn }

// testSnapshotWhileWriting takes a snapshot slowly; writers go on, and it is
// of one moment.
func testSnapshotWhileWriting(t *testing.T, m Maker) {
	s := m.New(t)
	for i := range 200 {
		put(t, s, fmt.Sprintf("k%d", i), "before")
	}
	var copied slowBuffer
	copied.each = func() {
		for i := range 20 {
			put(t, s, fmt.Sprintf("k%d", (copied.Len()+i*7)%200), "after")
			appendRecords(t, s, acme, 3, noon)
		}
	}
	if err := s.Snapshot(context.Background(), &copied); err != nil {
		t.Fatal(err)
	}
	restored := m.Restore(t, &copied.Buffer)
	view(t, restored, func(r store.Reader) error {
		for _, row := range scan(t, r, "", "") {
			if row[len(row)-6:] != "before" {
				t.Errorf("row %s is of a later moment", row)
			}
		}
		return nil
	})
	if records := VerifyLog(t, restored); len(records) != 0 {
		t.Errorf("%d records of a later moment", len(records))
	}
	VerifyLog(t, s)
}

// slowBuffer does something else at each of its first writes.
type slowBuffer struct {
	bytes.Buffer
	each  func()
	times int
}

func (b *slowBuffer) Write(p []byte) (int, error) {
	if b.times++; b.times <= 3 {
		b.each()
	}
	return b.Buffer.Write(p)
}
