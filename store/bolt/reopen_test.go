package bolt

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/store"
)

// After a full disk the file is opened anew, which waits for the readers there
// are. Others that come meanwhile wait no longer than they want to.
func TestAReaderDoesNotOutwaitItsContext(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "s.db"), Writer: "w1"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	began, let := make(chan struct{}), make(chan struct{})
	read := make(chan error, 1)
	go func() {
		read <- s.View(t.Context(), func(store.Reader) error {
			close(began)
			<-let
			return nil
		})
	}()
	<-began
	s.health.set(errFull, false, false)
	written := make(chan error, 1)
	go func() {
		written <- s.Update(t.Context(), func(tx store.Tx) error {
			_, err := tx.Put("t", "k", nil, 0)
			return err
		})
	}()
	for s.dbMu.TryRLock() { // until the committer waits for it
		s.dbMu.RUnlock()
		time.Sleep(time.Millisecond)
	}
	late := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		late <- s.View(ctx, func(store.Reader) error { return errors.New("ran") })
	}()
	select {
	case err := <-late:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the late reader: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the late reader still waits")
	}
	waiting := make(chan error, 1)
	go func() { waiting <- s.View(t.Context(), func(store.Reader) error { return nil }) }()
	close(let)
	for _, outcome := range []chan error{read, written, waiting} {
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	}
}
