// Package wire is the JSON of the broker's HTTP interface: what a request body
// may hold, what an answer holds, and the codes of its errors. The server and
// every client share these types, so that they can't drift apart.
//
// It refuses to know anything else: it imports the words of credential and
// has no rules, no transport and no state of its own.
package wire
