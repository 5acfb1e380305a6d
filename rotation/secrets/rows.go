package secrets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// The tables of this package. What is declared and where the rotation is are
// rows of their own, so that a rotation's steps don't change the version that an
// operator's If-Match names.
const (
	secretTable   store.Table = "secrets"          // id
	stateTable    store.Table = "secret_states"    // id
	uptakeTable   store.Table = "secret_uptake"    // id, account
	resourceTable store.Table = "secret_resources" // resource → id
	pairTable     store.Table = "secret_pairs"     // id, id of a secret that names it as its pair
	countTable    store.Table = "secret_counts"    // countKey → how many are declared
)

// Uptake is the newest version on which a consumer was seen.
type Uptake struct {
	Version uint64    `json:"version"`
	At      time.Time `json:"at"`
	How     How       `json:"how"`
}

// How says how a consumer was seen on a version.
type How string

// The ways.
const (
	Acknowledged How = "acknowledged" // it said so
	Observed     How = "observed"     // the broker handed the value out
)

// decode reads a stored row strictly.
func decode(row store.Row, v any) error {
	d := json.NewDecoder(bytes.NewReader(row.Value))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return nil
}

// put writes v under key if the row is at ifVersion.
func put(tx store.Tx, t store.Table, key string, v any, ifVersion uint64) (uint64, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("secrets: encode %s: %w", t, err)
	}
	return tx.Put(t, key, b, ifVersion)
}

// record is a secret with its state, as they were read at one moment.
type record struct {
	secret       *Secret
	state        State
	stateVersion uint64
	woken        uint64 // how often it had been asked for when it was read
	// unreadable is why one of the rows can't be read. Then the state is none,
	// and of the secret perhaps only its id is known.
	unreadable error
	absent     []Absent // consumers that are waited for and can't come
}

// stateRef is the state's row at the version that was read.
func (r record) stateRef() store.Ref {
	return store.Ref{Table: stateTable, Key: r.secret.ID, Version: r.stateVersion}
}

func (r record) secretRef() store.Ref {
	return store.Ref{Table: secretTable, Key: r.secret.ID, Version: r.secret.Version}
}

func readSecret(r store.Reader, id string) (*Secret, error) {
	row, err := r.Get(secretTable, id)
	if err != nil {
		return nil, err
	}
	s := &Secret{}
	if err = decode(row, s); err == nil && s.ID != id {
		err = fmt.Errorf("%w: under another id than its own", ErrUnreadable)
	}
	if err != nil {
		return &Secret{ID: id, Version: row.Version}, err
	}
	if s.Version = row.Version; s.Overlap == 0 { // declared before there was one
		s.Overlap = Duration(DefaultOverlap)
	}
	return s, nil
}

func readState(r store.Reader, id string) (State, uint64, error) {
	row, err := r.Get(stateTable, id)
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			err = fmt.Errorf("%w: a secret has lost its state", ErrUnreadable)
		}
		return State{}, 0, err
	}
	var s State
	if err := decode(row, &s); err != nil {
		return State{}, row.Version, err
	}
	return s, row.Version, nil
}

// readRecord reads a secret of which nothing is unreadable.
func readRecord(r store.Reader, id string) (record, error) {
	rec, err := readAny(r, id)
	if err == nil {
		err = rec.unreadable
	}
	return rec, err
}

// readAny reads a secret also where a row of it can't be read: whoever looks at
// many goes on with the others.
func readAny(r store.Reader, id string) (rec record, err error) {
	rec.secret, err = readSecret(r, id)
	if err != nil && !errors.Is(err, ErrUnreadable) {
		return record{}, err
	}
	rec.unreadable = err
	rec.state, rec.stateVersion, err = readState(r, id)
	if errors.Is(err, ErrUnreadable) {
		rec.unreadable, err = errors.Join(rec.unreadable, err), nil
	}
	return rec, err
}

// readUptake returns the uptake of every consumer that was ever seen. A row that
// can't be read counts as none: the consumer is waited for until it is seen again.
func readUptake(r store.Reader, id string) (map[credential.AccountID]Uptake, error) {
	seen := make(map[credential.AccountID]Uptake)
	prefix := store.Key(id, "")
	for row, err := range r.Scan(uptakeTable, prefix, "") {
		if err != nil {
			return nil, err
		}
		account, err := credential.ParseAccountID(strings.TrimPrefix(row.Key, prefix))
		if err != nil {
			continue
		}
		var u Uptake
		if decode(row, &u) != nil {
			u = Uptake{}
		}
		seen[account] = u
	}
	return seen, nil
}

// missing lists the consumers that were not seen on a version or a later one, or
// hold an older one still.
func (m *Manager) missing(r store.Reader, s *Secret, seen map[credential.AccountID]Uptake, version uint64) (list []credential.AccountID, err error) {
	for _, c := range s.Consumers {
		behind := seen[c].Version < version
		if !behind {
			held, err := m.held(r, c, s)
			if err != nil {
				return nil, err
			}
			behind = slices.ContainsFunc(held, func(v uint64) bool { return v < version })
		}
		if behind {
			list = append(list, c)
		}
	}
	return list, nil
}

// seen is what was observed of a version's consumers.
func (m *Manager) seen(r store.Reader, s *Secret, version uint64) (Seen, error) {
	uptake, err := readUptake(r, s.ID)
	if err != nil {
		return Seen{}, err
	}
	missing, err := m.missing(r, s, uptake, version)
	return Seen{Missing: missing, Spoke: s.spoke(uptake, version)}, err
}

// spoke is the date on the last consumer's word that it uses a version, or on the
// broker's that it has handed it out.
func (s *Secret) spoke(seen map[credential.AccountID]Uptake, version uint64) (last time.Time) {
	for _, c := range s.Consumers {
		if u := seen[c]; u.Version >= version {
			last = latest(last, u.At)
		}
	}
	return last
}

// pairsOf lists the secrets that never rotate together with s: the one that it
// names, and those that name it.
func pairsOf(r store.Reader, s *Secret) ([]string, error) {
	var ids []string
	prefix := store.Key(s.ID, "")
	for row, err := range r.Scan(pairTable, prefix, "") {
		if err != nil {
			return nil, err
		}
		ids = append(ids, strings.TrimPrefix(row.Key, prefix))
	}
	if s.Pair != "" && !slices.Contains(ids, s.Pair) {
		ids = append(ids, s.Pair)
	}
	return ids, nil
}

// pairUp notes which secret another one names as its pair.
func pairUp(tx store.Tx, id, old, next string) error {
	if old == next {
		return nil
	}
	if old != "" {
		row, err := tx.Get(pairTable, store.Key(old, id))
		if err != nil {
			return err
		}
		if err := tx.Delete(pairTable, row.Key, row.Version); err != nil {
			return err
		}
	}
	if next == "" {
		return nil
	}
	_, err := tx.Put(pairTable, store.Key(next, id), nil, 0)
	return err
}
