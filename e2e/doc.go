// Package e2e holds the tests that look at a running broker from outside: its
// invariants, bad requests, crashes, and clients that are not ours.
package e2e
