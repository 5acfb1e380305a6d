package keys

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// State is where a key is in its life. A key that left the ring has none.
type State string

// The states, in order. A revoked key is not published; it is remembered, so
// that verifiers can be told, for as long as a stale key set may hold it.
const (
	Standby  State = "standby"  // published, does not sign
	Active   State = "active"   // signs
	Retiring State = "retiring" // published, signs no more
	Revoked  State = "revoked"
)

const (
	// MaxKeys is the most keys that a ring may publish: far above what any
	// schedule needs, far below what verifiers refuse.
	MaxKeys = 32
	// revokedKept is longer than a verifier goes on with a stale key set.
	revokedKept = 48 * time.Hour
	// latestStep is how coarsely the latest time is remembered: between its
	// steps the ring needn't be written.
	latestStep = 10 * time.Minute
	fastStep   = time.Second // with InsecureFast
)

// Member is one key of a ring, without its private part.
type Member struct {
	ID        string               `json:"kid"` // RFC 7638 thumbprint
	Algorithm credential.Algorithm `json:"alg"`
	Home      string               `json:"home"`
	Public    json.RawMessage      `json:"jwk"` // the public JWK
	State     State                `json:"state"`

	PublishedAt time.Time `json:"published_at"`
	ActivatedAt time.Time `json:"activated_at,omitzero"`
	StoppedAt   time.Time `json:"stopped_at,omitzero"` // retired or revoked
	// KeepUntil is when a retiring or revoked key may leave: for a retiring
	// one, no token that it signed is valid any more.
	KeepUntil time.Time `json:"keep_until,omitzero"`
	// Notice is how long after publication every verifier has the key: the
	// longest max-age that was in force then, plus the spread.
	Notice time.Duration `json:"notice"`
	// LongestLife is the longest life of a token under any policy in force
	// while the key was active.
	LongestLife time.Duration `json:"longest_life,omitzero"`
	// Latest is the highest time seen while the key was active, to latestStep:
	// its tokens may bear it even if the clock was set back since.
	Latest time.Time `json:"latest,omitzero"`
	// LogFrom is the audit log's end at activation: the key's tokens come after.
	LogFrom uint64 `json:"log_from,omitzero"`
}

// Ring is the keys of one purpose and what must be remembered between their
// changes. It is a value: its methods return another ring and do no I/O.
type Ring struct {
	Members []Member `json:"keys"`
	// Notice and Life are the longest notice and token life under any policy
	// of this ring. They only grow: no replica knows what max-age another one
	// promises, or what lives it signs with, while configurations differ.
	Notice time.Duration `json:"notice"`
	Life   time.Duration `json:"life"`
	// Marks are, for each series of numbered keys of a home, the highest number
	// that is spent: what this ring has published, and what was there before it.
	// They only grow. No number up to its mark is ever published.
	Marks map[string]int `json:"marks,omitempty"`
	// Asked are, for each series, the highest number that a key was asked for
	// under. Numbers above it that exist are somebody else's.
	Asked map[string]int `json:"asked,omitempty"`
	// Foreign are, for each series, the numbers of somebody else that were found
	// last, until two keys were made since and nobody else was at it.
	Foreign map[string]Foreign `json:"foreign,omitempty"`
}

// Change is one transition of one key, as it goes on the record.
type Change struct {
	Type   string // a record type, e.g. KeyActivated
	KeyID  string
	Reason string
}

// The types of audit record that transitions leave.
const (
	KeyPublished = "key.published"
	KeyActivated = "key.activated"
	KeyRetired   = "key.retired"
	KeyRemoved   = "key.removed"
	KeyRevoked   = "key.revoked"
)

// Uptake is how many verifiers report on the poll, and how many of them hold
// each key. The zero Uptake is: none report, nobody is waited for.
type Uptake struct {
	Verifiers int
	Holding   map[string]int
	// Settling: the broker has just started, and verifiers that were on the poll
	// before may not be back yet.
	Settling bool
}

// Missing returns how many reporting verifiers lack the key. A key that
// nobody mentions is held by nobody. While it is settling, at least one does.
func (u Uptake) Missing(kid string) int {
	missing := max(0, u.Verifiers-u.Holding[kid])
	if u.Settling {
		missing = max(1, missing)
	}
	return missing
}

// Seen is what was observed of a ring from outside.
type Seen struct {
	Uptake Uptake
	// For is how long each key has been watched in its present state, by a
	// clock that nobody sets: the wall clock may jump over any wait. A key that
	// is missing here can't be used here now, and nothing happens to it.
	For map[string]time.Duration
	// Unusable are keys whose private part is damaged or lost for good. They
	// are never activated, and don't count as a standby.
	Unusable map[string]bool
	// Lost are those of them that their home has lost. If the active key is
	// one, nothing is signed until another one is active.
	Lost map[string]bool
}

// Find returns the key with this id.
func (r Ring) Find(kid string) (Member, bool) {
	if i := r.index(kid); i >= 0 {
		return r.Members[i], true
	}
	return Member{}, false
}

// Active returns the key that signs.
func (r Ring) Active() (Member, bool) {
	if i := r.active(); i >= 0 {
		return r.Members[i], true
	}
	return Member{}, false
}

// Published returns the keys that verifiers are shown: active, standby by
// age, retiring by age, so that the set reads in order of interest.
func (r Ring) Published() []Member {
	order := map[State]int{Active: 0, Standby: 1, Retiring: 2}
	shown := slices.DeleteFunc(slices.Clone(r.Members), func(m Member) bool { return !m.State.published() })
	slices.SortStableFunc(shown, func(a, b Member) int {
		return cmp.Or(order[a.State]-order[b.State], a.PublishedAt.Compare(b.PublishedAt))
	})
	return shown
}

func (s State) published() bool { return s == Standby || s == Active || s == Retiring }

func (r Ring) index(kid string) int {
	return slices.IndexFunc(r.Members, func(m Member) bool { return m.ID == kid })
}

func (r Ring) active() int {
	return slices.IndexFunc(r.Members, func(m Member) bool { return m.State == Active })
}

// kind is what keys are asked for. What is empty may be anything.
type kind struct {
	alg  credential.Algorithm
	home string
}

func (k kind) fits(m Member) bool {
	return (k.alg == "" || m.Algorithm == k.alg) && (k.home == "" || m.Home == k.home)
}

// oldestStandby returns the index of the usable standby key of the kind that
// was published first, -1 if there is none.
func (r Ring) oldestStandby(want kind, s Seen) int {
	found := -1
	for i, m := range r.Members {
		if m.State != Standby || s.Unusable[m.ID] || !want.fits(m) {
			continue
		}
		if found < 0 || m.PublishedAt.Before(r.Members[found].PublishedAt) {
			found = i
		}
	}
	return found
}

// emergencyStandby returns the index of the standby key to go to when there is
// no time to wait: one that can sign here, of the right algorithm and home if
// possible, the oldest, since most verifiers know it. It returns -1 if there is
// none.
func (r Ring) emergencyStandby(rules Rules, s Seen) int {
	if i := r.oldestStandby(rules.kind(), r.here(s)); i >= 0 {
		return i
	}
	return r.oldestStandby(kind{}, r.here(s))
}

// here is s with all keys unusable that can't sign here now.
func (r Ring) here(s Seen) Seen {
	here := Seen{Unusable: make(map[string]bool)}
	for _, m := range r.Members {
		_, watched := s.For[m.ID]
		here.Unusable[m.ID] = !watched || s.Unusable[m.ID]
	}
	return here
}

func (r Ring) standbys(want kind, s Seen) (n int) {
	for _, m := range r.Members {
		if m.State == Standby && want.fits(m) && !s.Unusable[m.ID] {
			n++
		}
	}
	return n
}

func (r Ring) clone() Ring {
	r.Members, r.Marks = slices.Clone(r.Members), maps.Clone(r.Marks)
	r.Asked, r.Foreign = maps.Clone(r.Asked), maps.Clone(r.Foreign)
	return r
}

// equal compares what changes without a change of state, and the states.
func (r Ring) equal(other Ring) bool {
	return r.Notice == other.Notice && r.Life == other.Life && maps.Equal(r.Marks, other.Marks) &&
		maps.Equal(r.Asked, other.Asked) && maps.Equal(r.Foreign, other.Foreign) && slices.EqualFunc(r.Members, other.Members, func(a, b Member) bool {
		return a.ID == b.ID && a.State == b.State && a.LongestLife == b.LongestLife && a.Latest.Equal(b.Latest)
	})
}
