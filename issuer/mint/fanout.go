package mint

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// fanOuts holds one row per grant with a fan_out and its account: the tenants
// it got within the window and when each is forgotten.
const fanOuts store.Table = "fan_out"

// visit is one tenant in such a row.
type visit struct {
	tenant string
	until  int64 // unix seconds
}

// countTenant counts the decision's tenant towards the grant's fan_out. A
// tenant stays counted for the window after its last token, or up to an eighth
// longer: its time is only rewritten when an eighth of the window has passed.
func countTenant(tx store.Tx, d Decision, now time.Time) error {
	key := store.Key(d.Grant, d.Account.String())
	row, err := tx.Get(fanOuts, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	visits, err := decodeVisits(row.Value)
	if err != nil {
		return err
	}
	visits = slices.DeleteFunc(visits, func(v visit) bool { return v.until <= now.Unix() })
	slack := d.FanOut.Window / 8
	until := now.Add(d.FanOut.Window + slack).Unix()
	i := slices.IndexFunc(visits, func(v visit) bool { return v.tenant == d.Tenant.String() })
	switch {
	case i >= 0 && visits[i].until >= now.Add(d.FanOut.Window).Unix() && visits[i].until <= until:
		return nil // counted, and recently enough
	case i >= 0:
		visits[i].until = until
	case len(visits) >= d.FanOut.Tenants:
		return ErrFanOut
	default:
		visits = append(visits, visit{d.Tenant.String(), until})
	}
	_, err = tx.Put(fanOuts, key, encodeVisits(visits), row.Version)
	return err
}

func encodeVisits(visits []visit) []byte {
	b := make([]byte, 0, 32*len(visits))
	for _, v := range visits {
		b = binary.BigEndian.AppendUint64(b, uint64(v.until)) //nolint:gosec // round trip with decodeVisits
		b = append(b, byte(len(v.tenant)))                    //nolint:gosec // a tenant has at most 64 bytes
		b = append(b, v.tenant...)
	}
	return b
}

func decodeVisits(b []byte) ([]visit, error) {
	var visits []visit
	for len(b) > 0 {
		if len(b) < 9 || len(b) < 9+int(b[8]) || int(b[8]) > credential.MaxTenantLength {
			return nil, fmt.Errorf("%w: a fan_out row can't be read", store.ErrUnavailable)
		}
		end := 9 + int(b[8])
		visits = append(visits, visit{string(b[9:end]), int64(binary.BigEndian.Uint64(b))}) //nolint:gosec // see above
		b = b[end:]
	}
	return visits, nil
}

// sweepRows is how many fan_out rows one pass looks at.
const sweepRows = 1000

// SweepFanOut forgets fan_out rows in which no tenant counts any more, looking
// at a bounded number of rows after the key after. It returns where to go on,
// "" at the end.
func SweepFanOut(ctx context.Context, st store.Store, now time.Time, after string) (next string, err error) {
	var dead []store.Row
	err = st.View(ctx, func(r store.Reader) error {
		seen := 0
		for row, err := range r.Scan(fanOuts, "", after) {
			if err != nil {
				return err
			}
			visits, err := decodeVisits(row.Value)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(visits, func(v visit) bool { return v.until > now.Unix() }) {
				dead = append(dead, store.Row{Key: row.Key, Version: row.Version})
			}
			if seen++; seen == sweepRows {
				next = row.Key
				return nil
			}
		}
		return nil
	})
	if err != nil || len(dead) == 0 {
		return next, err
	}
	return next, st.Update(ctx, func(tx store.Tx) error {
		for _, row := range dead {
			// One that has changed meanwhile is in use again.
			if err := tx.Delete(fanOuts, row.Key, row.Version); err != nil && !errors.Is(err, store.ErrChanged) {
				return err
			}
		}
		return nil
	})
}
