// Package pgrotation shows how an application on PostgreSQL takes part in the
// rotation of its login without a failed statement: see
// docs/guides/postgres-rotation.md. It is made to be copied or imported, and
// needs nothing of the broker but the values.
package pgrotation
