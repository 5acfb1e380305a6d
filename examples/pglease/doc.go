// Package pglease is a pool of connections to PostgreSQL whose user is leased
// for one tenant: each user lives minutes, and none of them is missed. It is
// for copying; docs/guides/leases.md says what it has to keep to.
package pglease
