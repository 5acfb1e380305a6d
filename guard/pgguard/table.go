package pgguard

import (
	"errors"
	"fmt"
	"strings"
)

// maxIdentifier is where PostgreSQL cuts a name, in bytes (NAMEDATALEN - 1).
const maxIdentifier = 63

// ErrName means: something is no name of a table, column or role.
var ErrName = errors.New("pgguard: not a name")

// Table is a table whose rows belong to tenants.
type Table struct {
	schema, name, column string
}

// ParseTable reads the name of a table and of its column with the tenant, written
// as in SQL: a name without quotes is in lower case, one in double quotes as it
// is. A table without a schema is in public.
//
// Errors: ErrName, also of a name longer than 63 bytes, or with a dollar, which
// could end a quoted body.
func ParseTable(table, column string) (Table, error) {
	names, err := parseNames(table)
	if err != nil {
		return Table{}, fmt.Errorf("%w of a table: %q", err, table)
	}
	columns, err := parseNames(column)
	if err != nil || len(columns) != 1 {
		return Table{}, fmt.Errorf("%w of a column: %q", ErrName, column)
	}
	switch len(names) {
	case 1:
		return Table{"public", names[0], columns[0]}, nil
	case 2:
		return Table{names[0], names[1], columns[0]}, nil
	}
	return Table{}, fmt.Errorf("%w of a table: %q", ErrName, table)
}

// String is the table's name as SQL has it, in quotes.
func (t Table) String() string { return quote(t.schema) + "." + quote(t.name) }

// Column is the column with the tenant as SQL has it, in quotes.
func (t Table) Column() string { return quote(t.column) }

// parseNames reads names with dots between them.
func parseNames(s string) (names []string, err error) {
	for {
		var name string
		if name, s, err = parseName(s); err != nil {
			return nil, err
		}
		names = append(names, name)
		if s == "" {
			return names, nil
		}
		if s[0] != '.' {
			return nil, ErrName
		}
		s = s[1:]
	}
}

// parseName reads one name and returns what comes after it.
func parseName(s string) (name, rest string, err error) {
	if quoted, is := strings.CutPrefix(s, `"`); is {
		name, rest, err = parseQuoted(quoted)
		if err != nil {
			return "", "", err
		}
	} else {
		end := strings.IndexByte(s, '.')
		if end < 0 {
			end = len(s)
		}
		for i, c := range []byte(s[:end]) {
			letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
			if !letter && (i == 0 || c < '0' || c > '9') {
				return "", "", ErrName
			}
		}
		name, rest = strings.ToLower(s[:end]), s[end:]
	}
	if name == "" || len(name) > maxIdentifier || strings.ContainsAny(name, "\x00\n\r$") || strings.ToValidUTF8(name, "") != name {
		return "", "", ErrName
	}
	return name, rest, nil
}

// parseQuoted reads what comes after a quote; two of them are one in the name.
func parseQuoted(s string) (name, rest string, err error) {
	var b strings.Builder
	for {
		end := strings.IndexByte(s, '"')
		if end < 0 {
			return "", "", ErrName
		}
		b.WriteString(s[:end])
		s = s[end+1:]
		if !strings.HasPrefix(s, `"`) {
			return b.String(), s, nil
		}
		b.WriteByte('"')
		s = s[1:]
	}
}

// quote is an identifier as it stands in SQL.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal is a string as it stands in SQL, whatever standard_conforming_strings
// is.
func literal(s string) string {
	quoted := "'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + quoted
	}
	return quoted
}
