package verifier

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

var (
	issuedAt = time.Unix(1_000_000, 0)
	acme     = credential.MustTenant("acme")
)

func chainOfTwo() *credential.Claims {
	return &credential.Claims{
		ID: "jti", Txn: "txn", Tenant: acme, IssuedAt: issuedAt, Expires: issuedAt.Add(time.Hour),
		Subject: credential.MustAccountID("subject"), ClientID: credential.MustAccountID("client"),
		Actor: &credential.Actor{Subject: credential.MustAccountID("actor"), By: &credential.Actor{Subject: credential.MustAccountID("first")}},
	}
}

func knowing(feeds ...*feed) *known {
	k := new(known)
	k.init(DefaultEntries)
	for _, f := range feeds {
		k.learn(f, issuedAt, 0, issuedAt)
	}
	return k
}

func accountsAt(at int64, ids ...string) map[credential.AccountID]int64 {
	m := make(map[credential.AccountID]int64)
	for _, id := range ids {
		m[credential.MustAccountID(id)] = at
	}
	return m
}

func TestEachKindEndsWhatItMeans(t *testing.T) {
	iat := issuedAt.Unix()
	for name, c := range map[string]struct {
		feed feed
		want error
	}{
		"nothing":            {feed{}, nil},
		"the token":          {feed{tokens: []string{"x", "jti"}}, errDeadToken},
		"another token":      {feed{tokens: []string{"txn"}}, nil},
		"the chain":          {feed{chains: []string{"txn"}}, errDeadChain},
		"another chain":      {feed{chains: []string{"jti"}}, nil},
		"its subject":        {feed{accounts: accountsAt(iat, "subject")}, errDeadAccount},
		"its client":         {feed{accounts: accountsAt(iat, "client")}, errDeadAccount},
		"its actor":          {feed{accounts: accountsAt(iat, "actor")}, errDeadAccount},
		"an actor before":    {feed{accounts: accountsAt(iat, "first")}, errDeadAccount},
		"an account's past":  {feed{accounts: accountsAt(iat-1, "subject", "client", "actor", "first")}, nil},
		"another account":    {feed{accounts: accountsAt(iat+9, "other")}, nil},
		"its tenant":         {feed{tenants: map[credential.Tenant]int64{acme: iat}}, errDeadTenant},
		"its tenant's past":  {feed{tenants: map[credential.Tenant]int64{acme: iat - 1}}, nil},
		"another tenant":     {feed{tenants: map[credential.Tenant]int64{credential.MustTenant("globex"): iat}}, nil},
		"its key":            {feed{keys: []string{"kid"}}, errDeadKey},
		"another key":        {feed{keys: []string{"other"}}, nil},
		"everything":         {feed{all: iat}, errDeadAll},
		"everything earlier": {feed{all: iat - 1}, nil},
		"its tenant's feed":  {feed{tenant: acme}, nil},
		"another's feed":     {feed{tenant: credential.MustTenant("globex")}, ErrUnavailable},
	} {
		c.feed.complete = true
		if err := knowing(&c.feed).check(chainOfTwo(), "kid"); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestAnswersAddUp(t *testing.T) {
	iat := issuedAt.Unix()
	first := &feed{complete: true, accounts: accountsAt(iat, "subject")}
	if k := knowing(first, &feed{accounts: accountsAt(iat-1, "subject"), tokens: []string{"other"}}); k.check(chainOfTwo(), "kid") == nil {
		t.Error("an epoch moved back")
	}
	if k := knowing(first, &feed{complete: true}); k.check(chainOfTwo(), "kid") != nil {
		t.Error("a complete answer leaves what was before")
	}
}

// A store of another age takes nothing back of keys and of the end of everything.
func TestACompleteAnswerLeavesKeysAndTheEndOfEverything(t *testing.T) {
	iat := issuedAt.Unix()
	for name, c := range map[string]struct {
		told feed
		want error
	}{
		"a key":      {feed{keys: []string{"kid"}}, errDeadKey},
		"everything": {feed{all: iat}, errDeadAll},
	} {
		c.told.complete = true
		if err := knowing(&c.told, &feed{complete: true, all: iat - 1, keys: []string{"other"}}).check(chainOfTwo(), "kid"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// While a complete answer comes in pieces, what was known before counts.
func TestACompleteAnswerTakesOverWhenItIsWhole(t *testing.T) {
	k := knowing(&feed{complete: true, tokens: []string{"jti"}, maxStale: time.Minute})
	if more := k.learn(&feed{complete: true, more: true, seq: 3}, issuedAt.Add(time.Second), 0, issuedAt); !more || k.check(chainOfTwo(), "kid") == nil {
		t.Error("half an answer counts")
	}
	if at, _ := k.confirmed(); !at.Equal(issuedAt) {
		t.Errorf("half an answer is fresh: %v", at)
	}
	if more := k.learn(&feed{seq: 9, chains: []string{"txn"}}, issuedAt.Add(2*time.Second), 0, issuedAt); more || k.seq != 9 {
		t.Errorf("seq %d", k.seq)
	}
	if err := k.check(chainOfTwo(), "kid"); !errors.Is(err, errDeadChain) {
		t.Errorf("%v", err)
	}
	if at, _ := k.confirmed(); !at.Equal(issuedAt.Add(2 * time.Second)) {
		t.Errorf("%v", at)
	}
}

func TestEntriesAreForgottenWhenNoTokenIsLeft(t *testing.T) {
	k := knowing(&feed{
		complete: true, tokens: []string{"a"}, chains: []string{"b"}, keys: []string{"c"},
		accounts: accountsAt(1, "d"), tenants: map[credential.Tenant]int64{acme: 1},
	})
	k.learn(&feed{}, issuedAt, entryLife, issuedAt)
	if n := k.count(); n != 5 {
		t.Errorf("%d left while tokens live", n)
	}
	k.learn(&feed{}, issuedAt, entryLife+sweepKnownEvery, issuedAt)
	if n := k.count(); n != 1 || len(k.entries.keys) != 1 {
		t.Errorf("%d left", n)
	}
	k.learn(&feed{}, issuedAt, keyLife+2*sweepKnownEvery, issuedAt)
	if n := k.count(); n != 0 {
		t.Errorf("%d left for ever", n)
	}
}

// More than is remembered: every token that any of it could mean is refused.
func TestTooManyEntriesEndAllTokens(t *testing.T) {
	k := new(known)
	k.init(1000)
	f := &feed{complete: true, keys: []string{"kid"}, tenant: acme}
	for n := range 1000 {
		f.tokens = append(f.tokens, fmt.Sprint(n))
	}
	k.learn(f, issuedAt, 0, issuedAt)
	if !k.dropped || k.count() != 1 {
		t.Errorf("%d remembered", k.count())
	}
	if err := k.check(chainOfTwo(), "other"); !errors.Is(err, errDeadAll) {
		t.Errorf("%v", err)
	}
	later := chainOfTwo()
	later.IssuedAt = issuedAt.Add(credential.MaxLeeway + time.Second)
	if err := k.check(later, "other"); err != nil {
		t.Errorf("what is issued later: %v", err)
	}
	if err := k.check(later, "kid"); !errors.Is(err, errDeadKey) {
		t.Errorf("the key is forgotten: %v", err)
	}
	later.Tenant = credential.MustTenant("globex")
	if err := k.check(later, "other"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("whose feed it is, is forgotten: %v", err)
	}
}

// Where there is no room to wait, a follower asks in vain, then without
// waiting, then in vain again: the pauses between two answers are short enough.
func TestWithoutRoomRevocationsAreKnownInTime(t *testing.T) {
	const most = 5.0 / 4 // of a pause, see jitter
	if between := time.Duration(most * float64(emptySpacing+withoutRoom(pollWait))); between > 1700*time.Millisecond {
		t.Errorf("%s between two answers", between)
	}
	if withoutRoom(0) < emptySpacing {
		t.Error("a broker that takes no calls at all is called too often")
	}
}
