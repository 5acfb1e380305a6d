// Package jwks holds public signature keys (RFC 7517): one key bound to one
// algorithm, immutable sets of them, and sets that are fetched from a URL and
// kept fresh.
//
// It refuses what can't be a key to verify with: private and symmetric keys,
// small RSA moduli, points off their curve, a key meant for encryption, and a
// document in which one key id stands for two keys. A key serves the one
// algorithm that it is bound to, whatever a token's header says.
package jwks

import "errors"

var (
	// ErrKey means: not a public key that can be used to verify signatures.
	ErrKey = errors.New("unusable key")
	// ErrSet means: not a key set.
	ErrSet = errors.New("unusable key set")
	// ErrUnknownKey means: the set has no key with that id.
	ErrUnknownKey = errors.New("unknown key")
	// ErrUnavailable means: the set can't be had now; trying later may help.
	ErrUnavailable = errors.New("key set unavailable")
)
