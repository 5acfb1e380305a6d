package broker_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// I9: the keys of a backup are revoked, and that ends its tokens by itself; the
// epoch is there for whoever still trusts those keys, and for assertions.
func TestARestoredStoreHoldsAnEpochOfTheRestore(t *testing.T) {
	clock := brokertest.NewClock()
	b := declared(t, brokertest.WithClock(clock))
	backup := filepath.Join(shortDir(t), "backup.db")
	if _, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), backup, clock.Now); err != nil {
		t.Fatal(err)
	}
	// What followers were told since, the backup doesn't know.
	if err := b.Internal().Store().Update(t.Context(), func(tx store.Tx) error {
		return revocation.AddKeys(tx, clock.Now().Add(5*time.Minute), "lost") // by a clock that ran ahead
	}); err != nil {
		t.Fatal(err)
	}
	seen := feedAfter(t, b.Internal().Store(), 0).Through
	b.Stop()
	clock.Advance(time.Minute)
	to, begun := elsewhere(t, b), clock.Now()
	if _, err := broker.Restore(t.Context(), broker.RestoreOptions{
		From: backup, Config: to, Now: clock.Now, Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	opened, err := broker.Open(t.Context(), to, broker.Deps{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	var epoch time.Time
	err = opened.Store().View(t.Context(), func(r store.Reader) (err error) {
		epoch, err = revocation.Epoch(r, revocation.Everything())
		return err
	})
	told := map[revocation.Kind]int{}
	for _, e := range feedAfter(t, opened.Store(), seen).Entries {
		told[e.Kind]++
	}
	if told[revocation.All] != 1 || told[revocation.Key] < 2 {
		t.Errorf("whoever followed the lost store is told of %v", told)
	}
	if err = errors.Join(err, opened.Close()); err != nil {
		t.Fatal(err)
	}
	if epoch.Before(begun.Add(-2*time.Second)) || epoch.After(clock.Now()) {
		t.Errorf("everything before %s is revoked, restored from %s to %s", epoch, begun, clock.Now())
	}
}

func feedAfter(t *testing.T, st store.Store, seq uint64) (p revocation.Page) {
	t.Helper()
	if err := st.View(t.Context(), func(r store.Reader) (err error) {
		p, err = revocation.Read(r, revocation.Whole(), seq, 100)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return p
}
