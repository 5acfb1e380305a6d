package revocation

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/store"
)

// sweepBatch is how many rows one transaction forgets.
const sweepBatch = 500

// What is planned to be forgotten, beside the kinds Token and Chain.
const (
	whatFeed  = "feed"
	whatEpoch = "epoch"
	whatReach = "reach"
)

// tableOf is where the row is that is forgotten.
var tableOf = map[string]store.Table{
	whatFeed: feed, whatEpoch: epochs, whatReach: reach, string(Token): tokens, string(Chain): chains,
}

// Sweep forgets what can't hit a token any more. It reports whether more is
// left.
func Sweep(ctx context.Context, st store.Store, now time.Time) (more bool, err error) {
	var due []string
	err = st.View(ctx, func(r store.Reader) (err error) {
		due, err = expired(r, now.Unix())
		return err
	})
	if err != nil || len(due) == 0 {
		return false, err
	}
	err = st.Update(ctx, func(tx store.Tx) error {
		for _, key := range due {
			if err := forget(tx, key); err != nil {
				return err
			}
		}
		return nil
	})
	return len(due) == sweepBatch, err
}

func expired(r store.Reader, before int64) (keys []string, err error) {
	for row, err := range r.Scan(byExpiry, "", "") {
		if err != nil {
			return nil, err
		}
		at, _, _ := strings.Cut(row.Key, "\x00")
		if n, err := strconv.ParseInt(at, 16, 64); err != nil || n >= before || len(keys) == sweepBatch {
			break
		}
		keys = append(keys, row.Key)
	}
	return keys, nil
}

// forget removes what is planned under key, if it is still planned.
func forget(tx store.Tx, key string) error {
	plan, err := tx.Get(byExpiry, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(key, "\x00")
	what, of, _ := strings.Cut(rest, "\x00")
	row, err := tx.Get(tableOf[what], of)
	if errors.Is(err, store.ErrNotFound) {
		return tx.Delete(byExpiry, key, plan.Version)
	}
	if err != nil {
		return err
	}
	if what == string(Token) || what == string(Chain) {
		for _, by := range []string{string(row.Value[8:]), allAccounts} {
			if err := discount(tx, by); err != nil {
				return err
			}
		}
	}
	if what == whatFeed {
		e, err := decodeFeed(row.Value)
		if err == nil {
			err = discountOf(tx, e.Of)
		}
		if err != nil {
			return err
		}
	}
	if err := tx.Delete(tableOf[what], of, row.Version); err != nil {
		return err
	}
	return tx.Delete(byExpiry, key, plan.Version)
}

// discount takes one entry off a count.
func discount(tx store.Tx, by string) error {
	n, version, err := number(tx, counts, by)
	if err != nil {
		return err
	}
	if n > 1 {
		_, err = tx.Put(counts, by, encode(n-1), version)
		return err
	}
	return tx.Delete(counts, by, version)
}
