package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Exit codes. They are part of the interface: scripts rely on them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitDenied      = 3
	exitNotFound    = 4
	exitConflict    = 5
	exitUnavailable = 6
	exitUnverified  = 7
	exitFindings    = 8
)

const exitCodesText = `Exit codes:

  0  done
  1  failed for another reason than those below
  2  the command line is wrong, or a value in it breaks a rule
  3  denied: the broker or a database does not accept the identity, the role is
     missing, or no grant allows the token
  4  there is no such object
  5  conflict: it exists already, is in use, or changed since it was read
  6  the broker can't be reached, is overloaded or not ready, or the service
     that is probed or the database can't be reached; try again later
  7  a token or an audit trail did not verify
  8  doctor or guard check found something that is wrong, or probe a leak`

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesText}
}

// usageError is a command line that can't be carried out.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// unverifiedError is something that did not stand up to its check.
type unverifiedError struct{ error }

func (e unverifiedError) Unwrap() error { return e.error }

// outcome is what an error means for a script and for a person.
type outcome struct {
	is   error
	code int
	hint string
}

// outcomes is the one table from error to exit code and advice; the first that
// matches counts.
var outcomes = []outcome{
	{errNoContext, exitUsage, "Sign in first: brokerctl login --issuer URL --account ID --key FILE"},
	{errNotConfirmed, exitFailure, ""},
	{client.ErrInvalidClient, exitDenied, "Is this key registered for this account, and the account enabled? See brokerctl context list. The reason is in the broker's audit trail."},
	{errNotOperator, exitDenied, "This account has no operator's grant. An operator with the role admin can add one: brokerctl operator add"},
	{client.ErrInvalidTarget, exitDenied, "No grant gives this account that tenant and audience. An operator can see why: brokerctl explain"},
	{client.ErrInvalidScope, exitDenied, "The grant lacks a scope. Leave --scope out to get all that it allows; an operator can see why: brokerctl explain"},
	{client.ErrUnauthorizedClient, exitDenied, "This account may not get tokens in this way."},
	{client.ErrForbidden, exitDenied, "This needs another role, or an operator of the whole broker. Who has which: brokerctl operator list"},
	{client.ErrNotFound, exitNotFound, "The list command shows what there is."},
	{wire.ErrNeedIfMatch, exitConflict, ""},
	{client.ErrChanged, exitConflict, "Someone else changed it meanwhile. Look at it again (get) and repeat the command."},
	{wire.ErrTooEarly, exitConflict, "Verifiers may not have the next key yet. In an emergency: --emergency"},
	{wire.ErrInUse, exitConflict, "Something still rests on it: remove that first, e.g. grants (brokerctl grant list). The last admin stays until there is another (brokerctl operator add)."},
	{wire.ErrReserved, exitConflict, "Ids are never used twice, and the broker keeps some for itself. Choose another."},
	{client.ErrConflict, exitConflict, ""},
	{client.ErrSlowDown, exitUnavailable, "Too many requests. Wait a little."},
	{client.ErrUnavailable, exitUnavailable, "Is the broker running and reachable at this address? Nothing is known about a change that was under way: look before repeating it."},
	{probe.ErrUnreachable, exitUnavailable, "Is the service running and reachable at base_url?"},
	{errDatabase, exitUnavailable, "Is it running, and reachable from here? A catalog that is locked, or a timeout, ends it too: --timeout."},
	{errDatabaseDenied, exitDenied, "Passwords come from --dsn-file, $" + envGuardDSN + ", PGPASSFILE or a service file."},
	{errNoDatabase, exitNotFound, ""},
	{verifier.ErrUnavailable, exitUnavailable, "The broker's keys can't be had. Give them with --jwks FILE to verify offline."},
	{client.ErrInvalid, exitUsage, ""},
	{client.ErrInvalidRequest, exitUsage, ""},
}

// classify returns the exit code and the advice for an error.
func classify(err error) (code int, hint string) {
	var usage usageError
	var unverified unverifiedError
	var findings findingsError
	switch {
	case errors.As(err, &unverified) && !errors.Is(err, verifier.ErrUnavailable):
		return exitUnverified, ""
	case errors.As(err, &findings):
		return exitFindings, ""
	case errors.As(err, &usage):
		return exitUsage, "See --help."
	case givesNoToken(err):
		return exitUnavailable, "The broker answers, and gives no token now: brokerctl doctor says where to look."
	}
	for _, o := range outcomes {
		if errors.Is(err, o.is) {
			return o.code, o.hint
		}
	}
	return exitFailure, ""
}

// printable makes text that may come from elsewhere safe for a terminal: no
// control characters, none that reorder what is shown.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || !unprintable(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}
