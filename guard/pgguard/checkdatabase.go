package pgguard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrOpen means: a database leaves rows of tenants open to a service's role.
var ErrOpen = errors.New("pgguard: a database that does not keep tenants apart")

// shownFindings is how many findings the text of a DatabaseError has.
const shownFindings = 10

// DatabaseError says by what; it is an ErrOpen.
type DatabaseError struct {
	Database string
	Findings []Finding // errors; none where no table with a tenant was found
	More     int       // that are not named
}

// Error names the first findings, 10 at most.
func (e *DatabaseError) Error() string {
	if len(e.Findings) == 0 && e.More == 0 {
		return fmt.Sprintf("%s: %s: no table with a column for the tenant was found", ErrOpen, e.Database)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s", ErrOpen, e.Database)
	shown := e.Findings[:min(len(e.Findings), shownFindings)]
	for _, f := range shown {
		fmt.Fprintf(&text, "; %s %s: %s", f.Kind, f.Object, f.What)
	}
	if more := len(e.Findings) - len(shown) + e.More; more > 0 {
		fmt.Fprintf(&text, "; and %d more", more)
	}
	return text.String()
}

// Unwrap returns ErrOpen.
func (*DatabaseError) Unwrap() error { return ErrOpen }

// Accepted is a finding that is known and meant, by its kind and object as Inspect
// shows them.
type Accepted struct {
	Kind   Kind
	Object string
}

// CheckDatabase refuses, at a service's start, to go on with a database that leaves
// rows of tenants open to its role: by a table without the policies, a view, a
// function, a foreign key or a grant. It is for what CheckRole does not look at, and returns what
// Inspect finds of SeverityError but for what is accepted. Warnings and notes are for
// brokerctl guard check, behind each migration. It takes as long as Inspect, which
// o.Timeout bounds.
//
// Errors: a *DatabaseError, which is an ErrOpen, also where there is no table with a
// tenant; those of Inspect.
func CheckDatabase(ctx context.Context, db Beginner, o InspectOptions, accepted ...Accepted) error {
	found, err := Inspect(ctx, db, o)
	if err != nil {
		return err
	}
	return found.refusal(accepted)
}

func (i *Inspection) refusal(accepted []Accepted) error {
	e := &DatabaseError{Database: i.Database}
	for _, f := range i.Findings {
		if f.Severity == SeverityError && !slices.Contains(accepted, Accepted{f.Kind, f.Object}) {
			e.Findings = append(e.Findings, f)
		}
	}
	// The worst come first: what is not named is no error if a named one is none.
	if n := len(i.Findings); n > 0 && i.Findings[n-1].Severity == SeverityError {
		e.More = i.More
	}
	if len(e.Findings) > 0 || e.More > 0 || len(i.Tables) == 0 {
		return e
	}
	return nil
}
