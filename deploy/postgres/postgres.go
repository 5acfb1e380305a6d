// Package postgres holds the objects that a PostgreSQL database needs so that
// users from Vault see one tenant's rows only. README.md says how to use them.
package postgres

import _ "embed" // the SQL beside this file

// SQL makes the objects, or brings them up to date. A superuser runs it in each
// database, by the simple protocol, as psql does.
//
//go:embed tenantbroker.sql
var SQL string
