package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// own is the table of what the broker remembers about itself.
const own store.Table = "broker"

// The rows of own.
const (
	identityKey = "identity"
	restoredKey = "restored"
)

// ErrOtherBroker says that the store belongs to a broker with another issuer URL. Its
// grants name that broker's own audiences, its tokens that broker's `iss`.
var ErrOtherBroker = errors.New("broker: the store belongs to another issuer")

// identity is whose store it is.
type identity struct {
	Issuer    credential.IssuerURL `json:"issuer"`
	CreatedAt time.Time            `json:"created_at"`
}

// restored says that the store came out of a backup, and what follows.
type restored struct {
	At time.Time `json:"at"`
	// Until: assertions that were used after the backup was taken may be
	// presented again until then; nobody is authenticated before.
	Until time.Time `json:"until"`
	// Generation tells the audit chains that go on from here from those that
	// went on from the same backup elsewhere, or before.
	Generation string `json:"generation"`
}

// openStore opens the store's file under the name that this broker writes its
// audit chains with, and checks or states whose it is.
func openStore(ctx context.Context, path string, c Config, options bolt.Options) (*bolt.Store, *restored, error) {
	options.Path = path
	options.Writer = c.doc.Writer
	for {
		st, err := bolt.Open(ctx, options)
		if err != nil {
			return nil, nil, err
		}
		back, err := readIdentity(ctx, st, c.issuer)
		if err != nil {
			return nil, nil, errors.Join(err, st.Close())
		}
		writer := c.doc.Writer
		if back != nil {
			writer += "-" + back.Generation
		}
		if writer == options.Writer {
			return st, back, nil
		}
		if err := st.Close(); err != nil {
			return nil, nil, err
		}
		options.Writer = writer
	}
}

// readIdentity returns whether the store was restored, nil if not.
func readIdentity(ctx context.Context, st store.Store, issuer credential.IssuerURL) (back *restored, err error) {
	err = st.View(ctx, func(r store.Reader) error {
		var whose identity
		switch found, err := getRow(r, identityKey, &whose); {
		case err != nil:
			return err
		case found && whose.Issuer != issuer:
			return fmt.Errorf("%w: %s, not %s", ErrOtherBroker, whose.Issuer, issuer)
		}
		var b restored
		found, err := getRow(r, restoredKey, &b)
		if found {
			back = &b
		}
		return err
	})
	return back, err
}

func getRow(r store.Reader, key string, v any) (found bool, err error) {
	row, err := r.Get(own, key)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(row.Value, v); err != nil {
		return false, fmt.Errorf("broker: row %s is damaged: %w", key, err)
	}
	return true, nil
}

// putRow writes a row whatever stands there.
func putRow(tx store.Tx, key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var version uint64
	switch row, err := tx.Get(own, key); {
	case err == nil:
		version = row.Version
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	_, err = tx.Put(own, key, value, version)
	return err
}

// claim states whose store this is, unless that is stated already.
func claim(ctx context.Context, st store.Store, issuer credential.IssuerURL, now time.Time) error {
	return st.Update(ctx, func(tx store.Tx) error {
		if _, err := tx.Get(own, identityKey); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		tx.Append(event(now, "broker.created", "a new store"))
		return putRow(tx, identityKey, identity{Issuer: issuer, CreatedAt: now.UTC()})
	})
}

// checkClaimed refuses a store that says of no broker that it is its own: a
// file that this program didn't write.
func checkClaimed(ctx context.Context, st store.Store) error {
	return st.View(ctx, func(r store.Reader) error {
		var whose identity
		found, err := getRow(r, identityKey, &whose)
		if err == nil && !found {
			err = errors.New("the file holds no broker's store")
		}
		return err
	})
}

// event is an audit record of something the broker itself did.
func event(now time.Time, kind, reason string) audit.Record {
	return audit.Record{
		Time: now.UTC(), Type: kind, Decision: audit.Allow, Reason: reason, Actor: "broker",
		Resource: audit.Resource{Type: "broker", ID: "store"},
	}
}

// recordEvent writes such a record by itself.
func recordEvent(ctx context.Context, st store.Store, r audit.Record) error {
	return st.Update(ctx, func(tx store.Tx) error {
		tx.Append(r)
		return nil
	})
}

// bestEffort logs an error that must not stop what is under way.
func bestEffort(logger *slog.Logger, what string, err error) {
	if err != nil {
		logger.Error(what, "error", err)
	}
}
