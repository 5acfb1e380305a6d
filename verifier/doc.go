// Package verifier is what a service imports to accept the broker's access
// tokens: New once, Verify for each request.
//
// A *Token comes from Verify alone, so holding one means that the signature,
// the issuer, the audience, the times and the one tenant were checked. A good
// signature is not enough: Verify refuses a token for another audience, with no
// tenant or more than one, with a header that brings its own key, bound to a
// key (`cnf`), since it is given no proof of one, or with a life above the
// broker's ceiling, an hour, and ten minutes for the broker's own audiences.
// Verified tokens are remembered, in bounded number; expiry, revocation and the
// presence of the signing key are checked on every call nevertheless.
//
// What the broker revoked before its time a Verifier knows from a Follower, given
// as Config.Revocations. Without one, tokens live until they expire.
//
// The keys are confirmed while they are used. One that the broker withdraws is
// accepted for the max-age of its key set and jwks.Grace, no longer while the
// broker can be reached; through an outage the last keys serve for a day.
//
// The package compiles the standard library, go-jose and the broker's words in
// package credential; nothing of the server.
package verifier
