package registry

import (
	"errors"
	"fmt"

	"github.com/tenantbroker/tenantbroker/store"
)

// Errors of the registry, wrapped or bare. Those of the store pass through.
var (
	// ErrNotFound: no such object, or one that this operator may not see. The
	// two can't be told apart.
	ErrNotFound = store.ErrNotFound
	// ErrChanged: the object is not at the version the caller named.
	ErrChanged = store.ErrChanged
	// ErrExists: the id is taken, was taken before, or differs from a taken one
	// in case only; or the key, subject or issuer URL is registered already.
	ErrExists = errors.New("registry: already exists")
	// ErrInvalid: a field is outside its grammar or bounds. The error is an
	// *InvalidError.
	ErrInvalid = errors.New("registry: invalid")
	// ErrForbidden: the operator's roles, or its tenant, don't reach that far.
	ErrForbidden = errors.New("registry: forbidden")
	// ErrInUse: something else depends on the object.
	ErrInUse = errors.New("registry: in use")
	// ErrReserved: the name, or the grant, belongs to the broker itself.
	ErrReserved = errors.New("registry: reserved for the broker")
)

// InvalidError says which field is wrong and why. It never repeats the value.
type InvalidError struct {
	Field string // as in the object's JSON, e.g. "max_ttl"
	Msg   string
}

// Error implements error.
func (e *InvalidError) Error() string { return "registry: " + e.Field + ": " + e.Msg }

// Is makes every InvalidError an ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Msg: fmt.Sprintf(format, args...)}
}
