// Package api is the broker over HTTP: the OAuth endpoints for workloads, the
// published documents, the administration for operators, and, on a listener of
// their own, health and metrics.
//
// It decides nothing. It reads requests strictly, hands them to the packages
// below, and turns what they say into answers by two tables, one for OAuth
// errors and one for problems (RFC 9457). It refuses what could be read in two
// ways: a parameter or a JSON member that comes twice, one that nobody knows,
// two ways of authenticating. A route that declares no role does not start.
// No answer shows a secret that it was sent.
package api
