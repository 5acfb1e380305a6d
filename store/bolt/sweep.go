package bolt

import (
	"context"
	"fmt"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/audit"
)

// Bounds of one Sweep.
const (
	sweepBuckets = 4
	sweepRecords = 2000
)

// Sweep implements store.Store.
func (s *Store) Sweep(ctx context.Context, now, keepAuditFrom time.Time) (more bool, err error) {
	var expired []onceBucket
	var records bool
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		all, err := listOnce(tx)
		for _, o := range all {
			if o.endsBefore(now) {
				expired = append(expired, o)
			}
		}
		if key, value := tx.Bucket(bucketLog).Cursor().First(); key != nil && err == nil {
			records, err = writtenBefore(value, keepAuditFrom)
		}
		return err
	})
	if err != nil || len(expired) == 0 && !records {
		return false, err
	}
	more = len(expired) > sweepBuckets
	expired = expired[:min(len(expired), sweepBuckets)]
	err = s.submit(&request{ctx: ctx, settled: make(chan error, 1), direct: func(tx *bbolt.Tx) error {
		if err := s.w.forgetOnce(tx, expired); err != nil {
			return err
		}
		if !records {
			return nil
		}
		left, err := s.w.forgetRecords(tx, keepAuditFrom)
		more = more || left
		return err
	}})
	return more, err
}

// forgetRecords removes the oldest records, with their marks, up to the first
// that is to be kept. A chain's head stays in
// a row of its own, so that it goes on where it was. It reports whether
// more is left.
func (w *writer) forgetRecords(tx *bbolt.Tx, keepFrom time.Time) (more bool, err error) {
	log, marks := tx.Bucket(bucketLog), tx.Bucket(bucketMarks)
	var keys [][]byte
	cursor := log.Cursor()
	for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
		if len(keys) == sweepRecords {
			more = true
			break
		}
		if old, err := writtenBefore(value, keepFrom); err != nil || !old {
			break
		}
		r, chain, err := audit.Parse(value[8:])
		if err != nil {
			return false, fmt.Errorf("%w: position %d: %w", errLog, getUint(key), err)
		}
		if r.Seq%markEvery == 1 {
			if err := marks.Delete(putUint(append([]byte(chain.String()), 0), r.Seq)); err != nil {
				return false, err
			}
		}
		digest := digestChain(chain.String())
		if newest, _ := w.heads.at(digest); newest == getUint(key) {
			h := head{seq: r.Seq, position: newest, hash: audit.Hash(value[8:])}
			if err := tx.Bucket(bucketHeads).Put([]byte(chain.String()), h.append(nil)); err != nil {
				return false, err
			}
		}
		keys = append(keys, key)
	}
	for _, key := range keys {
		if err := log.Delete(key); err != nil {
			return false, err
		}
	}
	return more, nil
}

func writtenBefore(value []byte, keepFrom time.Time) (bool, error) {
	if keepFrom.IsZero() {
		return false, nil
	}
	if len(value) < 8 {
		return false, errLog
	}
	r, _, err := audit.Parse(value[8:])
	return err == nil && r.Time.Before(keepFrom), err
}
