// Package orders is a small service whose tenants are kept apart at the request,
// at the object, in its cache and in its database. It is for copying: Open has
// what a service does at its start, and orders_test.go what it proves in its own
// tests, with a real broker and a real PostgreSQL.
package orders
