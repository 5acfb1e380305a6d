package keys

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
)

const auditRow = "current"

// AuditKeyCreated is the type of the record that a new audit key leaves.
const AuditKeyCreated = "audit_key.created"

// AuditKey returns the key that signs the heads of the audit chains: Ed25519,
// made at first use, sealed under kek, and never rotated, so that one public
// key, kept off the host, checks the whole history.
//
// Errors: ErrKEK, ErrSealed, ErrMismatch, ErrCorrupt; those of the store.
func AuditKey(ctx context.Context, st store.Store, kek KEK, now func() time.Time) (*audit.Signer, error) {
	home := &sealedHome{kek: kek, purpose: auditPurpose}
	for range attempts {
		row, err := readAuditKey(ctx, st)
		if errors.Is(err, store.ErrNotFound) {
			err = createAuditKey(ctx, st, home, now().UTC())
			if err == nil || errors.Is(err, store.ErrChanged) {
				continue // read what is there now: it may be another replica's
			}
		}
		if err != nil {
			return nil, fmt.Errorf("audit key: %w", err)
		}
		return openAuditKey(ctx, home, row)
	}
	return nil, fmt.Errorf("audit key: %w", store.ErrChanged)
}

func readAuditKey(ctx context.Context, st store.Store) (row keyRow, err error) {
	err = st.View(ctx, func(r store.Reader) error {
		got, err := r.Get(auditTable, auditRow)
		if err != nil {
			return err
		}
		row = keyRow{}
		return decode(got.Value, &row)
	})
	return row, err
}

func createAuditKey(ctx context.Context, st store.Store, home *sealedHome, now time.Time) error {
	made, err := home.Generate(ctx, credential.EdDSA, Spent{})
	if err != nil {
		return err
	}
	row := encode(keyRow{rowForm, credential.EdDSA, made.Home, made.Blob, made.Public.JWK()})
	return st.Update(ctx, func(tx store.Tx) error {
		if _, err := tx.Put(auditTable, auditRow, row, 0); err != nil {
			return err
		}
		tx.Append(audit.Record{
			Time: now, Type: AuditKeyCreated, Decision: audit.Allow, Reason: "there was none",
			Resource: audit.Resource{Type: "audit_key", ID: made.Public.ID()}, KeyID: made.Public.ID(),
		})
		return nil
	})
}

func openAuditKey(ctx context.Context, home *sealedHome, row keyRow) (*audit.Signer, error) {
	public, err := jwks.ParseKey(row.Public)
	if err != nil || row.Form != rowForm || row.Home != sealedName || public.ID() != public.Thumbprint() {
		return nil, fmt.Errorf("audit key: %w", ErrCorrupt)
	}
	private, err := home.private(ctx, Stored{Home: row.Home, Public: public, Blob: row.Sealed})
	if err != nil {
		return nil, fmt.Errorf("audit key %s: %w", public.ID(), err)
	}
	key, ok := private.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("audit key %s: %w", public.ID(), ErrMismatch)
	}
	return audit.NewSigner(key)
}
