package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
)

// The tables that this package owns.
const (
	// ringTable has one row per ring. It changes with every transition.
	ringTable store.Table = "key_rings"
	// signingTable has one row for each key that has the right to sign, now or
	// when its time comes: ring × kid → the private part, sealed. The row goes
	// when the key is retired or revoked, and with it the means to sign.
	signingTable store.Table = "signing_keys"
	// auditTable has one row: the audit key.
	auditTable store.Table = "audit_keys"
)

const rowForm = 1

type ringRow struct {
	Form int `json:"form"`
	Ring
}

type keyRow struct {
	Form      int                  `json:"form"`
	Algorithm credential.Algorithm `json:"alg"`
	Home      string               `json:"home"`
	Sealed    []byte               `json:"sealed"`
	Public    json.RawMessage      `json:"jwk,omitempty"` // of the audit key, which is in no ring
}

// encode can't fail: the rows hold no type that does.
func encode(row any) []byte {
	b, err := json.Marshal(row)
	if err != nil {
		panic(err)
	}
	return b
}

func decode(data []byte, row any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(row); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// stored is a ring and its private parts as they were read at one moment.
type stored struct {
	ring    Ring
	version uint64 // of the ring's row; 0: there is none
	public  map[string]jwks.Key
	private map[string]privatePart
}

type privatePart struct {
	row     keyRow
	version uint64
	err     error // why the row can't be used
}

// readRing reads the ring and the private parts of its keys.
func readRing(r store.Reader, name string) (stored, error) {
	st := stored{public: make(map[string]jwks.Key), private: make(map[string]privatePart)}
	row, err := r.Get(ringTable, name)
	if errors.Is(err, store.ErrNotFound) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	var decoded ringRow
	if err := decode(row.Value, &decoded); err != nil {
		return st, err
	}
	if decoded.Form != rowForm {
		return st, fmt.Errorf("%w: ring of form %d", ErrCorrupt, decoded.Form)
	}
	st.ring, st.version = decoded.Ring, row.Version
	for _, m := range st.ring.Members {
		key, err := jwks.ParseKey(m.Public)
		if err != nil || key.ID() != m.ID || key.Thumbprint() != m.ID || key.Algorithm() != m.Algorithm {
			return st, fmt.Errorf("%w: public key %s", ErrCorrupt, m.ID)
		}
		st.public[m.ID] = key
		if m.State != Standby && m.State != Active {
			continue
		}
		part, err := readPrivate(r, name, m)
		if err != nil {
			return st, err
		}
		st.private[m.ID] = part
	}
	return st, nil
}

func readPrivate(r store.Reader, ring string, m Member) (privatePart, error) {
	row, err := r.Get(signingTable, store.Key(ring, m.ID))
	if errors.Is(err, store.ErrNotFound) {
		return privatePart{err: fmt.Errorf("%w: the private part is gone", ErrCorrupt)}, nil
	}
	if err != nil {
		return privatePart{}, err
	}
	part := privatePart{version: row.Version}
	if part.err = decode(row.Value, &part.row); part.err == nil && (part.row.Form != rowForm || part.row.Home != m.Home) {
		part.err = fmt.Errorf("%w: private part of %s", ErrCorrupt, m.ID)
	}
	return part, nil
}

// set returns what verifiers are shown.
func (st stored) set() jwks.Set {
	var shown []jwks.Key
	for _, m := range st.ring.Published() {
		shown = append(shown, st.public[m.ID])
	}
	return jwks.NewSet(slices.Clip(shown)...)
}
