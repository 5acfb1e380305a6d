package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func explainCommand(a *app) *cobra.Command {
	var account credential.AccountID
	var req client.TokenRequest
	c := &cobra.Command{
		Use: "explain --account ID --tenant T --audience NAME", Short: "Say why an account would, or would not, get a token", Args: cobra.NoArgs,
		Long: `explain says which grant would match a request for a token and, for each that
would not, why. Nothing is issued. The workload itself is never told.`,
		Example: "  brokerctl explain --account billing-worker --tenant acme --audience https://billing.example.com --scope invoices.read",
	}
	parsed(c.Flags(), &account, credential.ParseAccountID, "account", "account", "who would ask (required)")
	requestFlags(c, &req)
	required(c, "account")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			e, err := admin.Explain(ctx, account, req)
			if err != nil || a.output != outputTable {
				return show(a)(e, err)
			}
			return a.printExplanation(e)
		})
	})
	return c
}

func (a *app) printExplanation(e *wire.Explanation) error {
	text := "DENY"
	if e.Decision == "allow" {
		text = fmt.Sprintf("ALLOW by grant %s: scope %q for %d s", e.Grant, e.Scope, e.Seconds)
	}
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	if e.Code != "" {
		text += fmt.Sprintf(" (the client is told %s)", e.Code)
	}
	if _, err := fmt.Fprintln(a.out, printable(text)); err != nil {
		return err
	}
	if len(e.Grants) == 0 {
		return nil
	}
	return printList(a, func(yield func(wire.ExplanationGrant, error) bool) {
		for _, g := range e.Grants {
			if !yield(g, nil) {
				return
			}
		}
	}, columns[wire.ExplanationGrant]{
		[]string{"GRANT", "MATCHES", "WHY NOT"},
		func(g wire.ExplanationGrant) []string {
			return []string{g.Grant, map[bool]string{true: "yes", false: "no"}[g.Matches], g.Reason}
		},
	})
}

// requestFlags adds the flags of a token request.
func requestFlags(c *cobra.Command, req *client.TokenRequest) {
	parsed(c.Flags(), &req.Tenant, credential.ParseTenant, "tenant", "tenant", "the one tenant (required)")
	parsed(c.Flags(), &req.Audience, credential.ParseAudience, "audience", "audience", "the service that the token is for (required)")
	parsed(c.Flags(), &req.Scopes, func(s string) (credential.Scopes, error) { return scopeSet([]string{s}) }, "scopes", "scope",
		"scopes, separated by spaces (default: all that the grant allows)")
	required(c, "tenant", "audience")
}
