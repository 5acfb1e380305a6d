// Package e2e holds the tests that look at a running broker from outside: its
// invariants, bad requests, crashes, rotations, what fails in Vault, and clients
// that are not ours.
package e2e
