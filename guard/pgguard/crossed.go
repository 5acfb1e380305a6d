package pgguard

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tenantbroker/tenantbroker/guard"
)

// sighting is a row that PostgreSQL refused in a transaction since it would be
// another tenant's, whatever its function makes of the error. It is seen on the
// connections that Configure has seen; on others the function's error tells.
type sighting struct{ first *pgconn.PgError }

// sightings is where a connection has that of its transaction.
const sightings = "tenantbroker/pgguard"

func (s *sighting) on(conn *pgconn.PgConn) { conn.CustomData()[sightings] = s }

func (*sighting) off(conn *pgconn.PgConn) { delete(conn.CustomData(), sightings) }

// onSQL and offSQL are for connections of database/sql. On one that was closed there
// is nothing to see.
func (s *sighting) onSQL(conn *sql.Conn) {
	_ = onPgx(conn, func(c *pgx.Conn) error { s.on(c.PgConn()); return nil })
}

func (s *sighting) offSQL(conn *sql.Conn) {
	_ = onPgx(conn, func(c *pgx.Conn) error { s.off(c.PgConn()); return nil })
}

// note sees an error of the server. Who uses a connection reads its errors.
func note(conn *pgconn.PgConn, e *pgconn.PgError) {
	s, is := conn.CustomData()[sightings].(*sighting)
	if !is || s.first != nil {
		return
	}
	if _, is := rowRefused(e); is {
		s.first = e
	}
}

// judge has the guard count and log the row that was refused, and returns the error
// of a transaction as what Check returns of another tenant's object, with what it was
// in it. A transaction that has gone on without that row is a success.
func (s *sighting) judge(ctx context.Context, err error) error {
	told, is := errors.AsType[*guard.Denied](err)
	is = is && told.Decision.Crossing
	table, refused := refusedRow(err)
	switch {
	case s.first != nil:
		table, refused = rowRefused(s.first)
	case is: // it has its line
		return err
	}
	if !refused {
		return err
	}
	cause := err
	if _, has := errors.AsType[*pgconn.PgError](err); err == nil {
		cause = s.first
	} else if !has && s.first != nil {
		cause = fmt.Errorf("%w: %w", err, s.first)
	}
	crossing := guard.Refused(ctx, guard.Resource{Type: "row", ID: table}, cause)
	if err == nil || is {
		return err
	}
	return crossing
}

// denied is insufficient_privilege: also of a GRANT that is missing.
const denied = "42501"

// What PostgreSQL says of a row that no policy lets in, in English: it names the
// policy if that is one that restricts.
var rowSecurity = regexp.MustCompile(`(?s)row-level security policy(?: "(.*)")?(?: \(USING expression\))? for table "(.*)"`)

// enforcer is the function of PostgreSQL that holds rows to policies, and refuses
// with this code nothing else, in whatever language.
const enforcer = "ExecWithCheckOptions"

// refusedRow looks for a row that row security refused, of guard's policies: the
// application may have others. table is "" where the language is another one.
func refusedRow(err error) (table string, is bool) {
	walk(err, func(err error) bool {
		table, is = rowRefused(err)
		return is
	})
	return table, is
}

// rowRefused looks at one error. Drivers of database/sql have their own types for
// those of the server, which tell the code in the same way.
func rowRefused(err error) (table string, is bool) {
	said, has := err.(interface{ SQLState() string })
	if !has || said.SQLState() != denied {
		return "", false
	}
	text, routine := err.Error(), ""
	if e, is := err.(*pgconn.PgError); is { //nolint:errorlint // walk unwraps
		text, routine = e.Message, e.Routine
	} else if e, is := err.(interface{ Get(byte) string }); is {
		routine = e.Get('R') // as lib/pq has it
	}
	found := rowSecurity.FindStringSubmatch(text)
	switch {
	case found == nil:
		return "", routine == enforcer
	case found[1] != "" && found[1] != "tenantguard" && found[1] != "tenantguard_only":
		return "", false
	}
	return found[2], true
}

// walk visits an error and all that it wraps, until visit is content.
func walk(err error, visit func(error) bool) bool {
	if err == nil {
		return false
	}
	if visit(err) {
		return true
	}
	switch e := err.(type) { //nolint:errorlint // this is what unwraps
	case interface{ Unwrap() error }:
		return walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if walk(inner, visit) {
				return true
			}
		}
	}
	return false
}
