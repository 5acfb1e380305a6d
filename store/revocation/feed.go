package revocation

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// The tables of the feed.
const (
	feed     store.Table = "revocation_feed" // place → entry
	sequence store.Table = "revocation_seq"  // one row: the newest place
)

const sequenceRow = "last"

// Kind is what an entry ends.
type Kind string

// The kinds of entry.
const (
	Token        Kind = "token"   // one token, by its jti
	Chain        Kind = "chain"   // all that bear one txn
	AccountEpoch Kind = "account" // all of an account, issued at or before Epoch
	TenantEpoch  Kind = "tenant"  // all of a tenant, likewise
	Key          Kind = "key"     // all that a signing key signed, by its kid
	All          Kind = "all"     // all, issued at or before Epoch
)

// Kinds are all of them.
var Kinds = []Kind{Token, Chain, AccountEpoch, TenantEpoch, Key, All}

// Entry is one revocation as verifiers are told of it.
type Entry struct {
	// Seq is its place in the feed. Places only grow, in the order of the
	// commits, and are microseconds since 1970 where the clock allows.
	Seq    uint64
	Kind   Kind
	ID     string            // jti, txn, account, tenant or kid; "" for All
	Tenant credential.Tenant // of a token, chain or tenant; else none
	Epoch  int64             // of an account, a tenant or all: unix seconds
}

// keyTold is how long verifiers are told of a revoked key: one that can't fetch
// the key set goes on with a stale one for a week at most.
const keyTold = 7*24*time.Hour + time.Hour

// AddKeys tells verifiers of signing keys that are withdrawn in an emergency.
func AddKeys(tx store.Tx, now time.Time, kids ...string) error {
	for _, kid := range kids {
		if err := publish(tx, now, &Entry{Kind: Key, ID: kid}, now.Add(keyTold)); err != nil {
			return err
		}
	}
	return nil
}

type feedRow struct {
	Kind   Kind              `json:"k"`
	ID     string            `json:"id,omitempty"`
	Tenant credential.Tenant `json:"t,omitzero"`
	Epoch  int64             `json:"e,omitempty"`
	Told   int64             `json:"x"` // until when it is told, unix seconds
	// Of is the tenant whose operators' entries it counts among; none as a rule.
	Of credential.Tenant `json:"of,omitzero"`
}

// publish appends an entry, which leaves at told, and sets its place.
func publish(tx store.Tx, now time.Time, e *Entry, told time.Time) error {
	return publishOf(tx, now, e, told, credential.Tenant{})
}

func publishOf(tx store.Tx, now time.Time, e *Entry, told time.Time, of credential.Tenant) (err error) {
	if e.Seq, err = nextSeq(tx, now); err != nil {
		return err
	}
	value, err := json.Marshal(feedRow{e.Kind, e.ID, e.Tenant, e.Epoch, told.Unix(), of})
	if err != nil {
		return err
	}
	if _, err := tx.Put(feed, place(e.Seq), value, 0); err != nil {
		return err
	}
	return forgetAt(tx, told, whatFeed, place(e.Seq))
}

// nextSeq takes the next place: the time, so that a restored store goes on after
// all that the lost one gave out, or one more than the last.
func nextSeq(tx store.Tx, now time.Time) (uint64, error) {
	last, version, err := number(tx, sequence, sequenceRow)
	if err != nil {
		return 0, err
	}
	next := max(last+1, now.UnixMicro())
	_, err = tx.Put(sequence, sequenceRow, encode(next), version)
	return uint64(next), err
}

// withdraw takes an entry out of the feed, if it is still there.
func withdraw(tx store.Tx, seq uint64) error {
	row, err := tx.Get(feed, place(seq))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := decodeFeed(row.Value)
	if err != nil {
		return err
	}
	if err := tx.Delete(feed, row.Key, row.Version); err != nil {
		return err
	}
	if err := discountOf(tx, e.Of); err != nil {
		return err
	}
	return unplan(tx, time.Unix(e.Told, 0), whatFeed, place(seq))
}

func decodeFeed(b []byte) (f feedRow, err error) {
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("%w: a feed row: %w", store.ErrUnavailable, err)
	}
	return f, nil
}

// place is a key that sorts as the number does.
func place(seq uint64) string { return fmt.Sprintf("%016x", seq) }

// View is what a follower may see. The zero View sees nothing.
type View struct{ tenant credential.Tenant }

// Whole sees all entries.
func Whole() View { return View{credential.System} }

// Within sees those of one tenant: its tokens, chains and epoch, the epochs of
// accounts whose tokens its services were given (see Reach), and what concerns
// everyone, keys and All. For credential.System it is Whole.
func Within(t credential.Tenant) View { return View{t} }

// Tenant returns the one tenant, or credential.System.
func (v View) Tenant() credential.Tenant { return v.tenant }

// may reports whether the view can show an entry, if it is not of an account
// that it has not met.
func (v View) may(e Entry) bool {
	switch {
	case v.tenant.IsZero():
		return false
	case v.tenant.IsSystem(), e.Kind == Key, e.Kind == All, e.Kind == AccountEpoch:
		return true
	}
	return e.Tenant == v.tenant
}

// met reports whether it has met the account, if the entry is of one.
func (v View) met(r store.Reader, e Entry) (bool, error) {
	if v.tenant.IsSystem() || e.Kind != AccountEpoch {
		return true, nil
	}
	return has(r, reach, store.Key(v.tenant.String(), e.ID))
}

// Page is a stretch of the feed.
type Page struct {
	Entries []Entry
	// Through is the place up to which it reads: the newest there is, or where
	// to go on.
	Through uint64
	More    bool // more was there than was asked for
}

// Read returns the entries after a place, in order, at most limit of them.
func Read(r store.Reader, view View, after uint64, limit int) (p Page, err error) {
	if p.Through, err = Newest(r); err != nil || after >= p.Through {
		return p, err
	}
	found, err := scan(r, view, after, limit)
	if err != nil {
		return p, err
	}
	for _, e := range found { // one question at a time is all that a server's session takes
		met, err := view.met(r, e)
		switch {
		case err != nil:
			return p, err
		case !met:
		case len(p.Entries) == limit:
			p.More, p.Through = true, p.Entries[limit-1].Seq
			return p, nil
		default:
			p.Entries = append(p.Entries, e)
		}
	}
	return p, nil
}

// clocks is how far the clocks of replicas may differ, which give out the places.
const clocks = credential.MaxLeeway

// Ahead reports whether a follower that was given this place has seen what the
// feed has not: a backup was restored, and places may come again that it takes
// for read. It is to be told everything.
//
// For a view of one tenant that is said of a place that lies ahead of the clock
// and of all that it sees, not of the newest there is: who could ask for that
// would find out, place by place, when others revoke. Up to the clock nothing is
// amiss, since what comes next comes after it.
func Ahead(r store.Reader, view View, after uint64, now time.Time) (bool, error) {
	if view.tenant.IsSystem() {
		newest, err := Newest(r)
		return after > newest, err
	}
	if after <= uint64(now.Add(-clocks).UnixMicro()) {
		return false, nil
	}
	p, err := Read(r, view, after-1, 1) // what it was given last is among them
	return len(p.Entries) == 0, err
}

// scan returns the entries that the view may show; of the whole feed no more
// than tell that there are more than limit.
func scan(r store.Reader, view View, after uint64, limit int) (found []Entry, err error) {
	for row, err := range r.Scan(feed, "", place(after)) {
		if err != nil {
			return nil, err
		}
		e, err := entryAt(row)
		if err != nil {
			return nil, err
		}
		if !view.may(e) {
			continue
		}
		if found = append(found, e); len(found) > limit && view.tenant.IsSystem() {
			break
		}
	}
	return found, nil
}

func entryAt(row store.Row) (Entry, error) {
	seq, err := strconv.ParseUint(row.Key, 16, 64)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: a place in the feed: %w", store.ErrUnavailable, err)
	}
	f, err := decodeFeed(row.Value)
	return Entry{seq, f.Kind, f.ID, f.Tenant, f.Epoch}, err
}

// Newest returns the place of the newest entry there was, 0 before the first.
func Newest(r store.Reader) (uint64, error) {
	n, _, err := number(r, sequence, sequenceRow)
	return uint64(n), err //nolint:gosec // not negative
}

// Count returns how many entries of each kind there are.
func Count(r store.Reader) (map[Kind]int, error) {
	counts := make(map[Kind]int)
	for row, err := range r.Scan(feed, "", "") {
		if err != nil {
			return nil, err
		}
		e, err := entryAt(row)
		if err != nil {
			return nil, err
		}
		counts[e.Kind]++
	}
	return counts, nil
}
