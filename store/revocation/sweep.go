package revocation

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// sweepBatch is how many entries one transaction forgets.
const sweepBatch = 500

// Sweep forgets what can't hit a token any more: entries whose token expired
// more than credential.MaxLeeway ago, and epochs older than the longest
// ticket. It reports whether more is left.
func Sweep(ctx context.Context, st store.Store, now time.Time) (more bool, err error) {
	var dead []string
	var old []store.Row
	err = st.View(ctx, func(r store.Reader) error {
		var err error
		if dead, err = expired(r, now.Add(-credential.MaxLeeway).Unix()); err != nil {
			return err
		}
		old, err = outlived(r, now.Add(-credential.MaxTicketLifetime-credential.MaxLeeway).Unix())
		return err
	})
	if err != nil || len(dead)+len(old) == 0 {
		return false, err
	}
	err = st.Update(ctx, func(tx store.Tx) error {
		for _, key := range dead {
			if err := forget(tx, key); err != nil {
				return err
			}
		}
		for _, row := range old {
			if err := tx.Delete(epochs, row.Key, row.Version); err != nil {
				return err
			}
		}
		return nil
	})
	return len(dead) == sweepBatch || len(old) == sweepBatch, err
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

func outlived(r store.Reader, before int64) (rows []store.Row, err error) {
	for row, err := range r.Scan(epochs, "", "") {
		if err != nil {
			return nil, err
		}
		if n, err := decode(row.Value); err != nil || n >= before {
			continue
		}
		if rows = append(rows, store.Row{Key: row.Key, Version: row.Version}); len(rows) == sweepBatch {
			break
		}
	}
	return rows, nil
}

// forget removes one entry and takes it off its account's count.
func forget(tx store.Tx, key string) error {
	index, err := tx.Get(byExpiry, key)
	if err != nil {
		return err
	}
	_, jti, _ := strings.Cut(key, "\x00")
	token, err := tx.Get(tokens, jti)
	if err != nil {
		return err
	}
	by := string(token.Value[8:])
	n, version, err := number(tx, counts, by)
	if err != nil {
		return err
	}
	if n > 1 {
		_, err = tx.Put(counts, by, encode(n-1), version)
	} else {
		err = tx.Delete(counts, by, version)
	}
	if err != nil {
		return err
	}
	if err := tx.Delete(tokens, jti, token.Version); err != nil {
		return err
	}
	return tx.Delete(byExpiry, key, index.Version)
}

// RevokeAllBefore kills every token that was issued at or before at, and
// records who asked for it: what a restored backup needs, since it has
// forgotten what was issued and revoked after it was taken (I9). The issuer
// then also refuses single-use assertions made before that moment.
func RevokeAllBefore(ctx context.Context, st store.Store, at time.Time, why audit.Record) error {
	why.Type, why.Decision = "revocation.everything", audit.Allow
	return st.Update(ctx, func(tx store.Tx) error {
		tx.Append(why)
		return SetEpoch(tx, Everything(), at)
	})
}
