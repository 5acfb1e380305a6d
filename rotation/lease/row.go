package lease

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// The tables. All but the first are derived from it and change with it.
const (
	leases    store.Table = "leases"         // id
	byTenant  store.Table = "leases_tenant"  // tenant, account, id → state
	byAccount store.Table = "leases_account" // account, tenant, id → state
	byDue     store.Table = "leases_due"     // when something is to be done, id
)

// State is where a lease is in its life.
type State string

// The states of a lease. One that has ended is no row any more.
const (
	Creating State = "creating" // Vault may be making it; nobody has it
	Active   State = "active"
	Ending   State = "ending" // not proven gone
)

// row is one lease. It holds no secret.
type row struct {
	ID      string               `json:"id"`
	Of      credential.Leasable  `json:"of"`
	Tenant  credential.Tenant    `json:"tenant"`
	Account credential.AccountID `json:"account"`
	State   State                `json:"state"`

	Mount string `json:"mount"`
	Role  string `json:"role,omitempty"`  // Vault's role of this lease alone; database
	Lease string `json:"lease,omitempty"` // Vault's id of it; database, once it is known
	User  string `json:"user,omitempty"`  // of the database, once it is known
	Path  string `json:"path,omitempty"`  // kv
	Stamp string `json:"stamp,omitempty"` // of the value that was given last; kv, see Config.Stamp
	// Connection is Vault's name of the database that the user was made in,
	// whatever the target says since.
	Connection string `json:"connection,omitempty"`

	Grant     string    `json:"grant"`
	Terms     string    `json:"terms"` // of the grant, hex
	Token     string    `json:"token"` // jti of the one that it was made, or last renewed, with
	Txn       string    `json:"txn"`
	Issued    time.Time `json:"issued"`              // of that token
	Login     time.Time `json:"login,omitzero"`      // of the broker at Vault, that it was made with
	LoginEnds time.Time `json:"login_ends,omitzero"` // as it was known then; zero: never
	Ends      *ending   `json:"ends,omitempty"`
	Next      *renewal  `json:"next,omitempty"` // on record, and not yet known to have taken effect

	CreatedAt time.Time `json:"created_at"`
	UsedAt    time.Time `json:"used_at"` // made or last renewed
	ExpiresAt time.Time `json:"expires_at"`
	Kept      time.Time `json:"kept,omitzero"`  // by Vault, unless it is told to end it; database
	Until     time.Time `json:"until"`          // whatever is renewed
	Made      string    `json:"made,omitempty"` // the mark of the target that it was made of

	version uint64
}

// renewal is one that was recorded before Vault was asked.
type renewal struct {
	ExpiresAt time.Time `json:"expires_at"`
}

// ending is how far an end has come.
type ending struct {
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Attempts int       `json:"attempts,omitempty"`
	Error    string    `json:"error,omitempty"` // of the last attempt
	NextAt   time.Time `json:"next_at"`
	// SettleAt: until then Vault may still be making what nobody waits for.
	SettleAt time.Time `json:"settle_at,omitzero"`
}

// digits in ASCII order, so that ids sort by their time.
var digits = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// idLength is that of newID.
const idLength = 26

// newID returns 26 characters: 48 bits of milliseconds and 80 random ones.
func newID(at time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(at.UnixMilli())<<16)
	_, _ = rand.Read(b[6:]) // never fails (crypto/rand, Go 1.24)
	return digits.EncodeToString(b[:])
}

// validID reports whether newID could have returned it.
func validID(id string) bool {
	if len(id) != idLength {
		return false
	}
	_, err := digits.DecodeString(id)
	return err == nil
}

// RolePrefix begins the names of a broker's roles in Vault, which may serve
// others too: its policy there can be for these alone. deploy/vault/setup makes
// the same of the issuer.
func RolePrefix(issuer credential.IssuerURL) string {
	sum := sha256.Sum256([]byte(issuer.String()))
	return "tb_" + hex.EncodeToString(sum[:6]) + "_"
}

// due is when something is to be done about the lease.
func (l *row) due() time.Time {
	switch {
	case l.Ends != nil:
		return l.Ends.NextAt
	case l.State == Creating:
		return l.CreatedAt.Add(creatingTimeout)
	}
	return l.ExpiresAt
}

func dueKey(at time.Time, id string) string {
	return store.Key(fmt.Sprintf("%016x", at.UnixMilli()), id)
}

// derived is what the row implies in the other tables.
func (l *row) derived() map[store.Table]string {
	return map[store.Table]string{
		byTenant:  store.Key(l.Tenant.String(), l.Account.String(), l.ID),
		byAccount: store.Key(l.Account.String(), l.Tenant.String(), l.ID),
		byDue:     dueKey(l.due(), l.ID),
	}
}

// value is what a derived row holds.
func (l *row) value(t store.Table) []byte {
	if t == byDue {
		return []byte{1}
	}
	return []byte(l.State)
}

// put writes the row in the place of old, nil for a new one.
func (l *row) put(tx store.Tx, old *row) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("lease: encode: %w", err)
	}
	var before map[store.Table]string
	var version uint64
	if old != nil {
		before, version = old.derived(), old.version
	}
	if l.version, err = tx.Put(leases, l.ID, b, version); err != nil {
		return err
	}
	for table, key := range l.derived() {
		if err := replace(tx, table, before[table], key, l.value(table)); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes the row and what it implies.
func (l *row) remove(tx store.Tx) error {
	if err := tx.Delete(leases, l.ID, l.version); err != nil {
		return err
	}
	for table, key := range l.derived() {
		if err := replace(tx, table, key, "", nil); err != nil {
			return err
		}
	}
	return nil
}

// replace moves a derived row; "" stands for none.
func replace(tx store.Tx, t store.Table, old, next string, value []byte) error {
	var version uint64
	if old != "" {
		at, err := tx.Get(t, old)
		switch {
		case errors.Is(err, store.ErrNotFound): // a damaged index keeps no lease from its end
		case err != nil:
			return fmt.Errorf("lease: index %s: %w", t, err)
		case old == next:
			version = at.Version
		default:
			if err := tx.Delete(t, old, at.Version); err != nil {
				return err
			}
		}
	}
	if next == "" {
		return nil
	}
	_, err := tx.Put(t, next, value, version)
	return err
}

// load reads a lease, or returns ErrNotFound.
func load(r store.Reader, id string) (*row, error) {
	if !validID(id) {
		return nil, ErrNotFound
	}
	at, err := r.Get(leases, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return decode(at)
}

// decode reads a stored row strictly enough to act on it.
func decode(at store.Row) (*row, error) {
	l := new(row)
	if err := json.Unmarshal(at.Value, l); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	bad := l.ID != at.Key || l.Of.IsZero() || l.Tenant.IsZero() || l.Account.IsZero() || l.Mount == ""
	switch l.State {
	case Creating, Active:
		bad = bad || l.Ends != nil
	case Ending:
		bad = bad || l.Ends == nil
	default:
		bad = true
	}
	if bad {
		return nil, errUnreadable
	}
	l.version = at.Version
	return l, nil
}

// copy returns a row that shares nothing with l.
func (l *row) copy() *row {
	next := *l
	if l.Ends != nil {
		ends := *l.Ends
		next.Ends = &ends
	}
	if l.Next != nil {
		renewal := *l.Next
		next.Next = &renewal
	}
	return &next
}
