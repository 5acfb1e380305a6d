package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// revokeFlags say what an operator ends.
type revokeFlags struct {
	chain            bool
	jti, txn, reason string
	tenant, ofTenant credential.Tenant
	ofAccount        credential.AccountID
}

func (f *revokeFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVar(&f.chain, "chain", false, "as an operator: the token of FILE and all that shares its txn")
	flags.StringVar(&f.jti, "jti", "", "as an operator: the token with this jti, of --tenant")
	flags.StringVar(&f.txn, "txn", "", "as an operator: all tokens with this txn, of --tenant")
	parsed(flags, &f.ofAccount, credential.ParseAccountID, "account", "of-account", "as an operator: all that the account has")
	parsed(flags, &f.ofTenant, credential.ParseTenant, "tenant", "of-tenant", "as an operator: all that the tenant has")
	parsed(flags, &f.tenant, credential.ParseTenant, "tenant", "tenant", "whose token or chain it is")
	flags.StringVar(&f.reason, "reason", "", "why, for the audit trail (required of an operator)")
	c.MarkFlagsMutuallyExclusive("chain", "jti", "txn", "of-account", "of-tenant")
}

// byOperator reports whether an operator's powers are asked for.
func (f *revokeFlags) byOperator() bool {
	return f.chain || f.jti != "" || f.txn != "" || !f.ofAccount.IsZero() || !f.ofTenant.IsZero()
}

// revocation is what the flags name, with the token where they need one.
func (f *revokeFlags) revocation(a *app, args []string) (wire.Revoke, error) {
	out := wire.Revoke{Tenant: f.tenant, Reason: f.reason}
	if f.reason == "" {
		return out, usageError{errors.New("--reason is missing: why, for the audit trail")}
	}
	if !f.chain && len(args) > 0 {
		return out, usageError{errors.New("the flags name what to revoke: leave FILE out")}
	}
	switch {
	case f.jti != "":
		out.Kind, out.ID = wire.RevokeToken, f.jti
	case f.txn != "":
		out.Kind, out.ID = wire.RevokeChain, f.txn
	case !f.ofAccount.IsZero():
		out.Kind, out.ID = wire.RevokeAccount, f.ofAccount.String()
	case !f.ofTenant.IsZero():
		out.Kind, out.ID = wire.RevokeTenant, f.ofTenant.String()
	default:
		claims, err := a.readClaims(args)
		if err != nil {
			return out, err
		}
		out.Kind, out.ID, out.Tenant = wire.RevokeChain, claims.Txn, claims.Tenant
	}
	return out, nil
}

// readClaims reads what a token says; nothing of it is verified, and the broker
// looks for the chain in its own record.
func (a *app) readClaims(args []string) (credential.Claims, error) {
	token, err := a.readToken(args)
	if err != nil {
		return credential.Claims{}, err
	}
	jws, err := credential.ParseJWS(string(token.Reveal()))
	if err != nil {
		return credential.Claims{}, unverifiedError{err}
	}
	claims, err := credential.ParseClaims(jws.UnverifiedPayload())
	if err != nil {
		return credential.Claims{}, unverifiedError{err}
	}
	return claims, nil
}

func tokenRevoke(a *app) *cobra.Command {
	given := new(profile)
	flags := new(revokeFlags)
	c := &cobra.Command{
		Use: "revoke [FILE]", Short: "Revoke a token, or all that came with it", Args: cobra.MaximumNArgs(1),
		Long: `revoke ends a token before its time (RFC 7009), as the account that it was issued
to, or the owner of its audience. For others, and for unknown tokens, the broker
answers the same and does nothing. The token comes from a file or from stdin.

With --chain, --jti, --txn, --of-account or --of-tenant it is an operator who
ends tokens, with the role security: a token's whole chain, or one token or chain
as "audit search" shows them, or all that an account or tenant has. Nothing is
stopped: new tokens are issued as before. Verifiers that follow the broker
refuse what was revoked within two seconds.`,
		Example: `  brokerctl token revoke --account billing-worker --key worker.pem token.txt
  brokerctl token revoke --chain --reason "incident 12" token.txt
  brokerctl token revoke --txn 3Q2Xw0Zb5yUqkq0E6iH7Rg --tenant acme --reason "incident 12"
  brokerctl token revoke --of-account billing-worker --reason "its host was stolen"`,
	}
	identityFlags(c, given)
	flags.add(c)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		if flags.byOperator() {
			return a.revokeAsOperator(ctx, flags, args)
		}
		if flags.reason != "" || !flags.tenant.IsZero() {
			return usageError{errors.New("--reason and --tenant are an operator's: say with --chain, --jti, --txn, --of-account or --of-tenant what ends")}
		}
		token, err := a.readToken(args)
		if err != nil {
			return err
		}
		return a.as(given, func(c *client.Client) error {
			if err := c.Revoke(ctx, token); err != nil {
				return err
			}
			return a.done(struct {
				Accepted bool `json:"accepted"`
			}{true}, "revoked, if it was this account's to revoke")
		})
	})
	return c
}

func (a *app) revokeAsOperator(ctx context.Context, flags *revokeFlags, args []string) error {
	what, err := flags.revocation(a, args)
	if err != nil {
		return err
	}
	return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
		done, err := admin.Revoke(ctx, what)
		if err != nil {
			return err
		}
		text := "revoked"
		if done.Already {
			text = "revoked before"
		}
		return a.done(done, "%s: %s %s", text, done.Kind, done.ID)
	})
}
