package keys

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
)

// KeyResealed is the type of the record that Rewrap leaves for each key.
const KeyResealed = "key.resealed"

// Rewrap seals all private keys of the store, those of every ring and the audit
// key, anew under to, in one commit, and returns how many. It opens them with
// from. Keys that are under to already stay as they are, so that it can be
// repeated. Keys of other homes are left alone.
//
// When it returns nil, every sealed key of the store was read back and opened
// with to: from is needed for nothing but older copies of the store. A manager
// that runs meanwhile, or starts before it is done, needs both (KEKs).
//
// Errors: ErrKEK and ErrSealed, naming the key; ErrCorrupt; store.ErrChanged if
// a key came or went meanwhile; those of the store.
func Rewrap(ctx context.Context, st store.Store, from, to KEK, now func() time.Time) (int, error) {
	n, err := rewrap(ctx, st, from, to, now)
	if err != nil {
		return 0, err
	}
	if err := OpensAll(ctx, st, to); err != nil {
		return n, fmt.Errorf("after it was sealed anew: %w", err)
	}
	return n, nil
}

// OpensAll returns nil if kek opens every sealed key of the store.
//
// Errors: ErrKEK and ErrSealed, naming the key; ErrCorrupt; those of the store.
func OpensAll(ctx context.Context, st store.Store, kek KEK) error {
	sealed, err := readSealed(ctx, st)
	if err != nil {
		return err
	}
	for _, s := range sealed {
		plain, err := kek.Open(ctx, s.row.Sealed, s.aad)
		clear(plain)
		if err != nil {
			return fmt.Errorf("key %s: %w", s.kid, err)
		}
	}
	return nil
}

func readSealed(ctx context.Context, st store.Store) (sealed []sealedRow, err error) {
	err = st.View(ctx, func(r store.Reader) (err error) {
		sealed, err = sealedRows(r)
		return err
	})
	return sealed, err
}

func rewrap(ctx context.Context, st store.Store, from, to KEK, now func() time.Time) (int, error) {
	sealed, err := readSealed(ctx, st)
	if err != nil {
		return 0, err
	}
	pending := sealed[:0]
	for _, s := range sealed {
		old, err := to.Open(ctx, s.row.Sealed, s.aad)
		clear(old)
		if err == nil {
			continue
		}
		pending = append(pending, s)
	}
	return reseal(ctx, st, pending, from, to, "the key-encryption key changed", now)
}

// reseal seals rows anew in one commit.
func reseal(ctx context.Context, st store.Store, pending []sealedRow, from, to KEK, cause string, now func() time.Time) (int, error) {
	for i, s := range pending {
		plain, err := from.Open(ctx, s.row.Sealed, s.aad)
		if err != nil {
			return 0, fmt.Errorf("key %s: %w", s.kid, err)
		}
		pending[i].row.Sealed, err = to.Seal(ctx, plain, s.aad)
		clear(plain)
		if err != nil {
			return 0, fmt.Errorf("key %s: %w", s.kid, err)
		}
	}
	if len(pending) == 0 {
		return 0, nil
	}
	at := now().UTC()
	err := st.Update(ctx, func(tx store.Tx) error {
		for _, s := range pending {
			if _, err := tx.Put(s.ref.Table, s.ref.Key, encode(s.row), s.ref.Version); err != nil {
				return err
			}
			tx.Append(audit.Record{
				Time: at, Type: KeyResealed, Decision: audit.Allow, Reason: cause,
				Resource: audit.Resource{Type: string(s.ref.Table), ID: s.kid}, KeyID: s.kid,
			})
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(pending), nil
}

// Renew seals the private keys of the store anew that were sealed with an older
// version of kek, in one commit, and returns how many. A KEK without versions
// has none of these.
//
// Errors: as Rewrap; ErrUnavailable.
func Renew(ctx context.Context, st store.Store, kek KEK, now func() time.Time) (int, error) {
	aging, ok := kek.(Aging)
	if !ok {
		return 0, nil
	}
	newest, err := aging.Newest(ctx)
	if err != nil {
		return 0, err
	}
	sealed, err := readSealed(ctx, st)
	if err != nil {
		return 0, err
	}
	pending := sealed[:0]
	for _, s := range sealed {
		// What another key-encryption key has sealed is for Rewrap.
		if age, err := aging.Age(s.row.Sealed); err == nil && age < newest {
			pending = append(pending, s)
		}
	}
	return reseal(ctx, st, pending, kek, kek, "the key-encryption key has a newer version", now)
}

// ForgetMarks has every ring of the store forget which numbers of a Series are
// spent, so that all that are there count as spent: for a store that is older
// than its homes.
func ForgetMarks(ctx context.Context, st store.Store) error {
	return st.Update(ctx, func(tx store.Tx) error {
		for row, err := range tx.Scan(ringTable, "", "") {
			if err != nil {
				return err
			}
			var ring ringRow
			if err := decode(row.Value, &ring); err != nil {
				return err
			}
			if len(ring.Marks) > 0 {
				ring.Marks, ring.Asked = nil, nil
				if _, err := tx.Put(ringTable, row.Key, encode(ring), row.Version); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

type sealedRow struct {
	ref store.Ref
	row keyRow
	kid string
	aad []byte
}

func sealedRows(r store.Reader) (all []sealedRow, err error) {
	for row, err := range r.Scan(signingTable, "", "") {
		if err != nil {
			return nil, err
		}
		_, kid, _ := strings.Cut(row.Key, "\x00")
		s := sealedRow{ref: store.Ref{Table: signingTable, Key: row.Key, Version: row.Version}, kid: kid}
		if err := decode(row.Value, &s.row); err != nil {
			return nil, fmt.Errorf("key %s: %w", kid, err)
		}
		s.aad = aad(sealedPurpose, s.row.Algorithm, kid)
		if s.row.Home == sealedName {
			all = append(all, s)
		}
	}
	for row, err := range r.Scan(auditTable, "", "") {
		if err != nil {
			return nil, err
		}
		s := sealedRow{ref: store.Ref{Table: auditTable, Key: row.Key, Version: row.Version}}
		if err := decode(row.Value, &s.row); err != nil {
			return nil, fmt.Errorf("audit key: %w", err)
		}
		public, err := jwks.ParseKey(s.row.Public)
		if err != nil {
			return nil, fmt.Errorf("audit key: %w", ErrCorrupt)
		}
		s.kid = public.ID()
		s.aad = aad(auditPurpose, s.row.Algorithm, s.kid)
		all = append(all, s)
	}
	return all, nil
}
