package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

func issuerCommand(a *app) *cobra.Command {
	return group("issuer", "Trusted issuers: platforms that vouch for workloads", "",
		issuerList(a), issuerGet(a), issuerCreate(a), issuerUpdate(a),
		deletion(a, "issuer", "ISSUER", "cluster-1",
			"delete ends the trust in a platform. Accounts that only it vouches for get no more tokens.",
			parseTextID, func(ctx context.Context, admin *client.Admin, id textID, version uint64, reason string) error {
				return admin.Issuers().Delete(ctx, string(id), version, reason)
			}))
}

func issuerList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List trusted issuers", Args: cobra.NoArgs,
		Example: "  brokerctl issuer list",
		RunE: a.does(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return printList(a, admin.Issuers().List(ctx), columns[wire.Issuer]{
					[]string{"ID", "ISSUER", "AUDIENCE", "KEYS", "ALGORITHMS"},
					func(i wire.Issuer) []string {
						return []string{i.ID, i.Issuer, i.Audience, keySource(i.IssuerTerms), algorithmText(i.Algorithms)}
					},
				})
			})
		}),
	}
}

func keySource(i wire.IssuerTerms) string {
	switch {
	case i.Discovery:
		return "discovery"
	case i.JWKSURL != "":
		return i.JWKSURL
	}
	return "static"
}

func algorithmText(all []credential.Algorithm) string {
	var names []string
	for _, alg := range all {
		names = append(names, string(alg))
	}
	return strings.Join(names, " ")
}

func issuerGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "get ISSUER", Short: "Show one trusted issuer", Args: cobra.ExactArgs(1),
		Example: "  brokerctl issuer get cluster-1",
		RunE: a.does(func(ctx context.Context, args []string) error {
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return show(a)(admin.Issuers().Get(ctx, args[0]))
			})
		}),
	}
}

// issuerFiles are the flags whose values lie in files.
type issuerFiles struct{ jwks, ca string }

func issuerFlags(c *cobra.Command, t *wire.IssuerTerms, files *issuerFiles) {
	f := c.Flags()
	f.StringVar(&t.Audience, "audience", "", "the one aud that its tokens carry for this broker")
	f.BoolVar(&t.Discovery, "discovery", false, "find its keys by OpenID discovery")
	f.StringVar(&t.JWKSURL, "jwks-url", "", "where its keys are")
	f.StringVar(&files.jwks, "jwks", "", "file with its keys, which are then fixed")
	f.StringVar(&files.ca, "ca", "", "PEM file with the roots to trust for its host")
	parsed(f, &t.Algorithms, algorithms, "algorithms", "alg", "algorithms it may sign with, comma-separated, e.g. RS256")
	f.StringSliceVar(&t.AllowedCIDRs, "allow-cidr", nil, "private network that its host may lie in; may be repeated")
	c.MarkFlagsMutuallyExclusive("discovery", "jwks-url", "jwks")
	_ = c.MarkFlagFilename("jwks", "json") // fails for a flag that doesn't exist
	_ = c.MarkFlagFilename("ca", "pem", "crt")
}

func algorithms(s string) ([]credential.Algorithm, error) {
	var all []credential.Algorithm
	for _, name := range strings.Split(s, ",") {
		alg, err := credential.ParseAlgorithm(strings.TrimSpace(name))
		if err != nil {
			return nil, fmt.Errorf("%q: one of ES256, ES384, EdDSA, RS256, PS256", name)
		}
		all = append(all, alg)
	}
	return all, nil
}

// read fills in what lies in files.
func (f issuerFiles) read(t *wire.IssuerTerms) error {
	if f.jwks != "" {
		data, err := os.ReadFile(f.jwks)
		if err != nil {
			return err
		}
		if _, err := jwks.ParseSet(data); err != nil {
			return usageError{fmt.Errorf("%s: %w", f.jwks, err)}
		}
		t.JWKS = json.RawMessage(data)
	}
	if f.ca != "" {
		data, err := os.ReadFile(f.ca)
		if err != nil {
			return err
		}
		t.CABundle = string(data)
	}
	return nil
}

func issuerCreate(a *app) *cobra.Command {
	var body wire.IssuerCreate
	var files issuerFiles
	c := &cobra.Command{
		Use: "create ID --url ISS --audience AUD --alg ALG (--discovery | --jwks-url URL | --jwks FILE) --reason WHY", Short: "Trust a platform to vouch for workloads", Args: cobra.ExactArgs(1),
		Long: `create trusts a platform's tokens as proof of who a workload is. Which account a
token stands for is said by the account: brokerctl account credential add --issuer.`,
		Example: `  brokerctl issuer create cluster-1 --url https://oidc.cluster-1.example.com --audience https://broker.example.com \
      --alg RS256 --discovery --reason "production cluster"`,
	}
	c.Flags().StringVar(&body.Issuer, "url", "", "the exact iss of its tokens (required)")
	issuerFlags(c, &body.IssuerTerms, &files)
	reasonFlag(c, &body.Reason)
	required(c, "url", "audience", "alg")
	c.MarkFlagsOneRequired("discovery", "jwks-url", "jwks")
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		body.ID = args[0]
		if err := files.read(&body.IssuerTerms); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return show(a)(admin.Issuers().Create(ctx, body))
		})
	})
	return c
}

func issuerUpdate(a *app) *cobra.Command {
	var t wire.IssuerTerms
	var files issuerFiles
	var reason string
	var version uint64
	c := &cobra.Command{
		Use: "update ISSUER --reason WHY", Short: "Change how a trusted issuer is checked", Args: cobra.ExactArgs(1),
		Example: "  brokerctl issuer update cluster-1 --jwks new-keys.json --reason \"its keys were replaced\"",
	}
	issuerFlags(c, &t, &files)
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		if err := files.read(&t); err != nil {
			return err
		}
		p := newPatch(c, reason)
		for _, source := range []struct {
			flag, member string
			value        any
		}{{"discovery", "discovery", t.Discovery}, {"jwks-url", "jwks_url", t.JWKSURL}, {"jwks", "jwks", t.JWKS}} {
			if c.Flags().Changed(source.flag) { // one source takes the place of another
				p.members["discovery"], p.members["jwks_url"], p.members["jwks"] = nil, nil, nil
				p.members[source.member] = source.value
			}
		}
		p.set("audience", "audience", t.Audience)
		p.set("ca", "ca_bundle", t.CABundle)
		p.set("alg", "algorithms", t.Algorithms)
		p.set("allow-cidr", "allowed_cidrs", t.AllowedCIDRs)
		if err := p.check(); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			issuers := admin.Issuers()
			at, err := basis(version, func() (*wire.Issuer, error) { return issuers.Get(ctx, args[0]) }, func(i *wire.Issuer) uint64 { return i.Version })
			if err != nil {
				return err
			}
			return show(a)(issuers.Update(ctx, args[0], at, p.members))
		})
	})
	return c
}
