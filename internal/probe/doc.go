// Package probe tries a running service from outside: what one tenant owns, it
// reaches for as another tenant and without a token, and says what came through.
//
// A description (ParseDescription) names the service, the credentials of two
// tenants, A and B, how an object comes to be, and what to try with it. Run
// creates or finds objects as both, tries everything, looks whether A's objects
// are as they were and whether A is shown what B made in A's name, and cleans up.
//
// What accuses is evidence: a value of A's object in an answer to a request that
// did not carry that value itself, a change in A's object, an answer to B that
// depends on whether A has the object, an answer to A with what only B wrote. A status, a resemblance or a time alone
// accuses nobody. And what proves nothing says so: where A's own attempt shows
// nothing, or B can't even reach its own object, B's refusal is inconclusive.
//
// It talks HTTP through net/http, to the one origin of the description, follows
// no redirect, and shows no token and no value of an answer.
package probe
