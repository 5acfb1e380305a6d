package secrets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Kind is what a rotation does out there for one kind of secret. Its methods
// are called for one secret at a time, each bounded in time. No error of a kind
// and no Handle holds a value: both are kept and shown.
type Kind interface {
	// Name is how operators call the kind.
	Name() string
	// Backend names what all secrets of the kind need, such as "vault": while it
	// is away none of them calls it more often than one would. "" for none.
	Backend() string
	// Check reads a spec strictly. The error is for the operator.
	Check(spec json.RawMessage, about Subject) (Checked, error)
	// Steps are the steps in which the kind does something, in order; Promote,
	// Drain and Retire are among them. Drain is a wait and never handed to Do.
	Steps() []Step
	// Effects names the side effects of a step, in order: what Work.Effect is
	// called with. A crash can come before and after each.
	Effects(Step) []string

	// Inspect looks, without changing anything, whether what is out there is
	// what w.Old says. Version 0 stands for: nothing is known yet, but for what
	// Moved has kept in its handle.
	Inspect(ctx context.Context, w *Work) (Inspection, error)
	// Prepare reads what Do will need to recognise its own doing later. It
	// changes nothing; what it returns is kept with the intent.
	Prepare(ctx context.Context, w *Work) (Handle, error)
	// Do carries out a step. It is not called again before Look has told that
	// the step did not happen. What it returns is kept in w.New; in Clean, where
	// GivenUp, with the value that stays.
	Do(ctx context.Context, w *Work) (Handle, error)
	// Look finds out whether a step that was begun has happened.
	Look(ctx context.Context, w *Work) (Finding, error)
}

// Aging is a Kind whose values end by themselves, so that its secrets can't get
// as old as others.
type Aging interface {
	// DefaultMaxAge is how old a secret may get whose successor may take drain;
	// 0 where the spec leaves no room.
	DefaultMaxAge(spec json.RawMessage, drain time.Duration) time.Duration
}

// Moving is a Kind of whose value something stays in use where its secret's spec
// is changed, so that the next rotation must know of it.
type Moving interface {
	// Moved is what of a handle that was kept under one spec holds under another;
	// nil: nothing. The error is for the operator: under that spec no rotation
	// would end what is in use.
	Moved(from, to json.RawMessage, kept Handle) (Handle, error)
}

// Adopting is a Kind whose Inspect finds whatever consumers may use already, so that
// a rotation which began without an old value ends none. Of the others the first one
// can end what was there before the broker.
type Adopting interface {
	Adopts()
}

// Subject is the secret that a spec belongs to.
type Subject struct {
	ID            string
	Tenant        credential.Tenant // zero: shared
	Owner         credential.AccountID
	MaxAge, Drain time.Duration // how old a value gets, and how long its successor may take
}

// Checked is a spec that was read.
type Checked struct {
	Spec json.RawMessage // in canonical form
	// Resources are what the kind changes out there. No two secrets have one in
	// common.
	Resources []string
	// Reach is what the operator must be allowed to: the spec reaches beyond
	// what is the tenant's by its name.
	Whole     bool // only operators of the whole broker declare it
	Sensitive bool // it needs the role that client secrets need
	// Accounts are those that the spec names; they must be the tenant's. Lends
	// are those whose powers the value, or its rotation, hands on. Published are
	// those whose credential lies where the tenant's workloads read: none may
	// reach beyond the tenant.
	Accounts, Lends, Published []credential.AccountID
}

// Work is one step of one rotation, for a kind.
type Work struct {
	Secret Secret
	Step   Step
	Nonce  string
	New    Slot
	Old    Slot // zero: there was none
	// Forced: an operator has said that what others changed may be overwritten.
	Forced bool
	// GivenUp: the rotation failed before promote, and Clean removes the new
	// value too.
	GivenUp bool
	// Begins, of Inspect: a rotation begins with what it finds.
	Begins bool

	crash func(point string)
	kind  Kind
}

// Effect runs one side effect of the step. Tests end the process around it.
func (w *Work) Effect(name string, do func() error) error {
	w.crash(Point(w.kind.Name(), w.Step, name, "before"))
	err := do()
	w.crash(Point(w.kind.Name(), w.Step, name, "after"))
	return err
}

// Point is the name of one moment at which a rotation can be cut off.
func Point(kind string, step Step, effect, when string) string {
	return fmt.Sprintf("%s/%s/%s/%s", kind, step, effect, when)
}

// Points lists every moment at which a rotation of this kind can be cut off.
func Points(k Kind) []string {
	var all []string
	for _, step := range k.Steps() {
		for _, effect := range k.Effects(step) {
			all = append(all, Point(k.Name(), step, effect, "before"), Point(k.Name(), step, effect, "after"))
		}
	}
	return all
}

// Inspection is what Inspect found.
type Inspection struct {
	// Drift says what is not as the broker left it; "": nothing.
	Drift string
	// Found is what is there now, for a rotation that begins with it.
	Found Handle
	// Stamp is the newest version that a broker has written there, as consumers
	// know it, for a rotation that begins; 0: none is found. It is above what this
	// broker knows of where its store, or the declaration, is younger than the value.
	Stamp uint64
}

// Finding is what Look found.
type Finding struct {
	What   What   // FoundDone, FoundNot or Elsewhere
	Handle Handle // as Do would have returned it
	Note   string // for Elsewhere: what another has changed
}

// Errors of kinds, wrapped.
var (
	// ErrAway: the backend can't be reached or doesn't serve. Nothing was
	// refused, and others of the backend need not try.
	ErrAway = errors.New("secrets: the backend is away")
	// ErrNotDone, of Do: the step certainly did not happen.
	ErrNotDone = errors.New("secrets: not done")
	// ErrDrift, of Do: another has changed what the step is about, and the step
	// did not happen.
	ErrDrift = errors.New("secrets: changed by another")
)
