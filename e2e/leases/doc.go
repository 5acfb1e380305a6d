// Package leases tests tenant-bound leases on a running broker with a real
// Vault and a real PostgreSQL.
package leases
