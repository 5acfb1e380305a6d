// Package revocation remembers which tokens are dead before they expire:
// single ones by their id, chains by their transaction, accounts, tenants or
// everything by an epoch (a second at or before which their tokens were
// issued), and signing keys by their id. What verifiers have to be told of it
// is kept as a feed: entries in the order of their commits.
//
// It refuses to grow without bound: an entry is forgotten when no token that
// it could hit is left; one account that revokes more than MaxPerAccount tokens
// at a time gets an epoch instead, and so does whoever comes when MaxEntries
// are kept for all.
package revocation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Bounds of the entries for single tokens and chains.
const (
	MaxPerAccount = 1000    // live ones that one account has made
	MaxEntries    = 100_000 // live ones of all accounts
	// forOperators of these are left for operators, whatever workloads revoke.
	forOperators = MaxEntries / 10
)

// The tables.
const (
	tokens   store.Table = "revoked_tokens"    // tenant, jti → expiry, place in the feed, who revoked it
	chains   store.Table = "revoked_chains"    // tenant, txn → the same
	counts   store.Table = "revoked_counts"    // account → live entries that it made; allAccounts → of all; a tenant → of its operators
	epochs   store.Table = "revoked_epochs"    // kind, id → epoch, place in the feed
	byExpiry store.Table = "revoked_by_expiry" // when, what, its key: what is to be forgotten
)

// allAccounts is no account's id.
const allAccounts = "*"

// ErrFull means that the account has revoked as many of other accounts' tokens as are
// kept. Some are forgotten with every second; try later.
var ErrFull = errors.New("too many revocations by this account: end all that its owner has instead")

// Outcome says what Add did.
type Outcome int

// The outcomes.
const (
	Added     Outcome = iota + 1
	Already           // it was revoked before, by itself or under an epoch
	Collapsed         // the client had too many: all that it has is revoked
)

// Add revokes one token, which the caller has verified, on behalf of by. One
// that is dead already changes nothing: an epoch would hit what came after it.
//
// Errors: ErrFull, or the store's.
func Add(tx store.Tx, now time.Time, c credential.Claims, by credential.AccountID) (Outcome, error) {
	return add(tx, now, c, by, MaxEntries-forOperators)
}

// EndToken is Add for an operator, who has room when workloads have taken theirs.
func EndToken(tx store.Tx, now time.Time, c credential.Claims, by credential.AccountID) (Outcome, error) {
	return add(tx, now, c, by, MaxEntries)
}

func add(tx store.Tx, now time.Time, c credential.Claims, by credential.AccountID, most int64) (Outcome, error) {
	dead, err := Revoked(tx, c)
	if err != nil {
		return 0, err
	}
	if dead {
		return Already, nil
	}
	switch err := count(tx, by, most); {
	case errors.Is(err, ErrFull) && by == c.ClientID:
		return Collapsed, SetEpoch(tx, Account(by), now)
	case err != nil: // an epoch would also hit tokens that are none of its business
		return 0, err
	}
	// A verifier with the longest leeway takes it that long.
	gone := c.Expires.Add(credential.MaxLeeway)
	return Added, single(tx, now, Entry{Kind: Token, ID: c.ID, Tenant: c.Tenant}, gone, gone, by)
}

// AddChain revokes all tokens of a tenant that bear the txn, whenever they
// were issued, on behalf of an operator.
//
// Errors: ErrFull, or the store's.
func AddChain(tx store.Tx, now time.Time, tenant credential.Tenant, txn string, by credential.AccountID) (Outcome, error) {
	switch _, err := tx.Get(chains, store.Key(tenant.String(), txn)); {
	case err == nil:
		return Already, nil
	case !errors.Is(err, store.ErrNotFound):
		return 0, err
	}
	if err := count(tx, by, MaxEntries); err != nil {
		return 0, err
	}
	// A ticket of the chain may come back for as long as it lives; but nothing
	// is issued for it any more, so verifiers need not know as long.
	told := now.Add(credential.MaxAccessLifetime + credential.MaxLeeway)
	kept := now.Add(credential.MaxTicketLifetime + credential.MaxLeeway)
	return Added, single(tx, now, Entry{Kind: Chain, ID: txn, Tenant: tenant}, told, kept, by)
}

// single writes the row of a token or chain and its entry.
func single(tx store.Tx, now time.Time, e Entry, told, kept time.Time, by credential.AccountID) error {
	if err := publish(tx, now, &e, told); err != nil {
		return err
	}
	table := tokens
	if e.Kind == Chain {
		table = chains
	}
	key := store.Key(e.Tenant.String(), e.ID)
	if _, err := tx.Put(table, key, append(encode(kept.Unix()), by.String()...), 0); err != nil {
		return err
	}
	return forgetAt(tx, kept, string(e.Kind), key)
}

// count adds an entry to those of the account and of all, which are most then,
// or returns ErrFull and has changed nothing.
func count(tx store.Tx, by credential.AccountID, most int64) error {
	mine, mineAt, err := number(tx, counts, by.String())
	if err != nil {
		return err
	}
	all, allAt, err := number(tx, counts, allAccounts)
	if err != nil {
		return err
	}
	if mine >= MaxPerAccount || all >= most {
		return ErrFull
	}
	if _, err := tx.Put(counts, by.String(), encode(mine+1), mineAt); err != nil {
		return err
	}
	_, err = tx.Put(counts, allAccounts, encode(all+1), allAt)
	return err
}

// Revoked reports whether a token with these claims is revoked.
func Revoked(r store.Reader, c credential.Claims) (bool, error) {
	scopes := []Scope{Everything(), Tenant(c.Tenant)}
	for _, account := range parties(c) {
		scopes = append(scopes, Account(account))
	}
	epoch, err := Epoch(r, scopes...)
	if err != nil {
		return false, err
	}
	if !epoch.IsZero() && !c.IssuedAt.After(epoch) {
		return true, nil
	}
	dead, err := has(r, tokens, store.Key(c.Tenant.String(), c.ID))
	if err != nil || dead {
		return dead, err
	}
	return has(r, chains, store.Key(c.Tenant.String(), c.Txn))
}

// parties are the accounts that a token speaks of: subject, client, actors.
func parties(c credential.Claims) []credential.AccountID {
	all := []credential.AccountID{c.Subject}
	if c.ClientID != c.Subject {
		all = append(all, c.ClientID)
	}
	for a := c.Actor; a != nil; a = a.By {
		all = append(all, a.Subject)
	}
	return all
}

func has(r store.Reader, t store.Table, key string) (bool, error) {
	switch _, err := r.Get(t, key); {
	case err == nil:
		return true, nil
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	default:
		return false, err
	}
}

// number reads a row that begins with one number; 0 at version 0 if there is
// none.
func number(r store.Reader, t store.Table, key string) (int64, uint64, error) {
	row, err := r.Get(t, key)
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	n, err := decode(row.Value)
	return n, row.Version, err
}

func encode(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) } //nolint:gosec // round trip with decode

func decode(b []byte) (int64, error) {
	if len(b) < 8 {
		return 0, fmt.Errorf("%w: a revocation row is %d bytes", store.ErrUnavailable, len(b))
	}
	return int64(binary.BigEndian.Uint64(b)), nil //nolint:gosec // round trip with encode
}
