// Package credential is the ground floor: the words that every other package
// speaks (Tenant, AccountID, Audience, Scopes, Lifetime, Claims, Secret) and
// the strict reading of JSON and of compact JWS on which they rest.
//
// Every type here is made by one parser and has unexported fields, so a value
// that exists is valid; decoding from JSON or text goes through the same
// parser. The zero value of each is "none" and is never accepted as a value.
//
// The package refuses rather than repairs: a token payload with two tenants, a
// duplicate member at any depth, a header that points at a foreign key, or a
// base64 segment with a second spelling is an error even when the signature is
// good.
package credential
