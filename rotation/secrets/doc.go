// Package secrets rotates shared secrets: static credentials that several
// workloads hold. A rotation goes stage → apply → prove → promote → drain →
// retire. Next decides what comes next and does no I/O; each step is written
// down before its side effect, and a step whose outcome is unknown is resolved
// by looking. What a step does out there is for the kinds, in rotation/secrets/kinds.
//
// It refuses to promote what was not proven, to retire the old value while a
// consumer was not seen on the new one, to rotate two secrets of a pair
// together, to overwrite what somebody else has written, and to hold a secret's
// value: those are in Vault, or wherever the kind keeps them.
package secrets

import (
	"errors"
)

// Errors of this package, wrapped or bare. Those of registry and store pass
// through.
var (
	// ErrBusy: a rotation is under way and what was asked for must wait for it.
	ErrBusy = errors.New("secrets: a rotation is under way")
	// ErrIdle: there is no rotation to abort.
	ErrIdle = errors.New("secrets: no rotation is under way")
	// ErrPromoted: consumers may hold the new value, so the rotation goes on.
	ErrPromoted = errors.New("secrets: the new value is in use, so the rotation can't be aborted")
	// ErrPlanChanged: what would be done is no longer what was shown.
	ErrPlanChanged = errors.New("secrets: the plan is not what was shown")
	// ErrNoVersion: consumers were never given such a version.
	ErrNoVersion = errors.New("secrets: no such version")
	// ErrFull: MaxSecrets are declared.
	ErrFull = errors.New("secrets: too many shared secrets")
	// ErrUnreadable: what the store has of it is nothing that this program wrote.
	ErrUnreadable = errors.New("secrets: what is stored of it can't be read")
)
