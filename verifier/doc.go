// Package verifier is what a service imports to accept the broker's access
// tokens: New once, Verify for each request.
//
// A *Token comes from Verify alone, so holding one means that the signature,
// the issuer, the audience, the times and the one tenant were checked. What
// Verify refuses, it refuses whatever the signature says: a token for another
// audience, with no tenant or more than one, with a header that brings its own
// key, with a life longer than the broker gives. Verified tokens are
// remembered, in bounded number; expiry, revocation and the presence of the
// signing key are checked on every call nevertheless.
//
// The package compiles the standard library, go-jose and the broker's words in
// package credential; nothing of the server.
package verifier
