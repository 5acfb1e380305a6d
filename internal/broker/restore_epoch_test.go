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
	b.Stop()
	clock.Advance(time.Hour)
	to := elsewhere(t, b)
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
	if err = errors.Join(err, opened.Close()); err != nil {
		t.Fatal(err)
	}
	if age := clock.Now().Sub(epoch); age < 0 || age > 2*time.Second {
		t.Errorf("everything before %s is revoked, restored at %s", epoch, clock.Now())
	}
}
