package keys

import (
	"errors"
	"slices"
	"sync"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// refusals knows which numbers Vault was asked for by this process and refused
// for certain: whoever makes one later is somebody else. A process that starts
// doesn't know what the one before it was told, and takes what was asked for as
// made for it.
type refusals struct {
	mu     sync.Mutex
	series map[string]refusal
}

type refusal struct {
	number  int
	certain bool // no call for it may have taken effect
}

// note takes down how a call for a number ended.
func (r *refusals) note(series string, number int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.series == nil {
		r.series = make(map[string]refusal)
	}
	before := r.series[series]
	r.series[series] = refusal{number, certainly(err) && (before.number != number || before.certain)}
}

// certainly reports whether a call had no effect, and will have none.
func certainly(err error) bool {
	return !errors.Is(err, vault.ErrUncertain) && slices.ContainsFunc([]error{
		vault.ErrForbidden, vault.ErrRefused, vault.ErrNotFound, vault.ErrRateLimited, vault.ErrSealed, vault.ErrStandby, vault.ErrLoggedOut,
	}, func(kind error) bool { return errors.Is(err, kind) })
}

// below returns the highest number up to asked that may be this broker's own.
func (r *refusals) below(series string, asked int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := r.series[series]; last.certain {
		return min(asked, last.number-1)
	}
	return asked
}
