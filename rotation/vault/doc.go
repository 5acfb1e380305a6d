// Package vault is how the broker talks to HashiCorp Vault: it signs in, stays
// signed in, and offers the engines that rotation needs (Transit, KV version 2,
// Database, leases) with typed answers and typed errors.
//
// It refuses to repeat a call that may have taken effect, to follow a redirect,
// to read anything from the environment, to send more than a bounded number of
// calls to a Vault that is down, and to show a token or a value in an error.
package vault

import "errors"

// Kinds of failure, for errors.Is. What Vault answered is in an *Error.
var (
	// ErrUnavailable: Vault didn't do it, since it can't be reached, is too
	// slow, or failed (5xx). Try again later.
	ErrUnavailable = errors.New("vault: unavailable")
	// ErrSealed: it is sealed. Also ErrUnavailable.
	ErrSealed = errors.New("vault: sealed")
	// ErrStandby: a node that doesn't serve, or sends elsewhere. Also ErrUnavailable.
	ErrStandby = errors.New("vault: a standby node")
	// ErrRateLimited: a quota is used up (429). Also ErrUnavailable.
	ErrRateLimited = errors.New("vault: rate limited")
	// ErrLoggedOut: there is no token, since no login succeeded yet or the
	// last one has ended. The call was not sent. Also ErrUnavailable.
	ErrLoggedOut = errors.New("vault: not logged in")
	// ErrUncertain: the call may have taken effect: look before trying again.
	// Also ErrUnavailable.
	ErrUncertain = errors.New("vault: the call may have taken effect")
	// ErrForbidden: the token's policies don't allow it (403).
	ErrForbidden = errors.New("vault: forbidden")
	// ErrNotFound: no such path, key, role, lease or version (404).
	ErrNotFound = errors.New("vault: not found")
	// ErrRefused: Vault understood it and won't (400).
	ErrRefused = errors.New("vault: refused")
	// ErrConflict: the value was changed by somebody else (KV check-and-set).
	ErrConflict = errors.New("vault: changed meanwhile")
	// ErrAnswer: an answer that is not what this version of Vault gives.
	ErrAnswer = errors.New("vault: unexpected answer")
	// ErrConfig: a configuration that can't work.
	ErrConfig = errors.New("vault: unusable configuration")
)
