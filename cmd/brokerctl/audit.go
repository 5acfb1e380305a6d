package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
)

func auditCommand(a *app) *cobra.Command {
	return group("audit", "The audit trail", "", auditTail(a), auditSearch(a), auditExport(a), auditKey(a), auditVerify(a))
}

// recordColumns is how records are shown as a table.
var recordColumns = columns[wire.AuditRecord]{
	[]string{"TIME", "DECISION", "TYPE", "TENANT", "SUBJECT", "ACTOR", "WHAT", "REASON"},
	func(r wire.AuditRecord) []string {
		what := r.Audience
		if r.Resource != nil {
			what = r.Resource.Type + " " + r.Resource.ID
		}
		reason := r.Reason
		if r.Count > 1 {
			reason = fmt.Sprintf("%d times: %s", r.Count, reason)
		}
		return []string{when(r.Time), r.Decision, r.Type, r.Tenant, r.Subject, r.Actor, shortened(what, 48), shortened(reason, 60)}
	},
}

// filterFlags adds the flags that narrow a search.
func filterFlags(c *cobra.Command, f *client.AuditFilter) {
	parsed(c.Flags(), &f.Tenant, credential.ParseTenant, "tenant", "tenant", `only this tenant's; "system" for the broker's own`)
	for _, text := range []struct {
		to          *string
		name, usage string
	}{
		{&f.Type, "type", "what happened, e.g. token.issued"},
		{&f.Decision, "decision", "allow or deny"},
		{&f.Subject, "subject", "whom it is about"},
		{&f.Actor, "actor", "who acted, e.g. an operator"},
		{&f.ClientID, "client-id", "the account that authenticated"},
		{&f.Audience, "audience", "the service that a token is for"},
		{&f.JTI, "jti", "one token"},
		{&f.Txn, "txn", "one chain of tokens"},
		{&f.KeyID, "kid", "tokens signed by this key"},
		{&f.Grant, "grant", "tokens that rest on this grant"},
		{&f.RequestID, "request-id", "one request, as errors name it"},
	} {
		c.Flags().StringVar(text.to, text.name, "", text.usage)
	}
}

func auditSearch(a *app) *cobra.Command {
	var f client.AuditFilter
	var limit int
	var all bool
	c := &cobra.Command{
		Use: "search", Short: "Search the audit trail, newest first", Args: cobra.NoArgs,
		Long: "search shows the newest records that match." + signInsText,
		Example: `  brokerctl audit search --decision deny --since 1h
  brokerctl audit search --request-id 6Jm1c2 -o json
  brokerctl audit search --tenant acme --since 2026-03-01 --until 2026-04-01 --limit 0`,
	}
	filterFlags(c, &f)
	parsed(c.Flags(), &f.Since, a.past("nothing is recorded there yet"), "time", "since", "from then on: a time, a date, or how long ago such as 1h")
	parsed(c.Flags(), &f.Until, a.past("leave --until out for all until now"), "time", "until", "before then: a time, a date, or how long ago")
	allFlag(c, &all)
	c.Flags().IntVar(&limit, "limit", 100, "at most so many records; 0: all")
	c.Flags().BoolVar(&f.Oldest, "oldest-first", false, "in the order in which it happened")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		if limit < 0 {
			return usageError{errors.New("--limit can't be negative")}
		}
		if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
			return usageError{errors.New("--since is not before --until: nothing can be found")}
		}
		signIns, err := a.signIns(f, all)
		if err != nil {
			return err
		}
		if limit > 0 {
			f.Limit = signIns.page(limit)
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			found := signIns.leftOut(admin.Audit().Search(ctx, f))
			defer signIns.note(a)
			return printList(a, func(yield func(wire.AuditRecord, error) bool) {
				n := 0
				for r, err := range found {
					if !yield(r, err) {
						return
					}
					if n++; n == limit {
						return
					}
				}
			}, recordColumns)
		})
	})
	return c
}

// tailInterval is how often audit tail --follow looks.
const tailInterval = 2 * time.Second

func auditTail(a *app) *cobra.Command {
	var f client.AuditFilter
	var lines int
	var follow, all bool
	c := &cobra.Command{
		Use: "tail", Short: "Show the newest records, and what follows", Args: cobra.NoArgs,
		Long:    "tail shows the newest records, oldest first. With -o json or yaml: one JSON object per line." + signInsText,
		Example: "  brokerctl audit tail -n 50\n  brokerctl audit tail -f --decision deny",
	}
	filterFlags(c, &f)
	c.Flags().IntVarP(&lines, "lines", "n", 20, fmt.Sprintf("how many, at most %d", wire.MaxLimit))
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	allFlag(c, &all)
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		if lines < 1 || lines > wire.MaxLimit {
			return usageError{fmt.Errorf("--lines is between 1 and %d", wire.MaxLimit)}
		}
		signIns, err := a.signIns(f, all)
		if err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			defer signIns.note(a)
			err := a.tail(ctx, admin.Audit(), f, lines, follow, signIns)
			if follow && errors.Is(err, context.Canceled) {
				return nil // how it ends
			}
			return err
		})
	})
	return c
}

func (a *app) tail(ctx context.Context, trail client.Audit, f client.AuditFilter, lines int, follow bool, signIns *signIns) error {
	f.Limit = signIns.page(lines)
	var newest []wire.AuditRecord
	var next string
	for len(newest) < lines { // a page may be short although there is more
		page, err := trail.Page(ctx, f)
		if err != nil {
			return err
		}
		if next == "" {
			next = page.Tail
		}
		newest = append(newest, signIns.without(page.Items, lines-len(newest))...)
		if f.Cursor = page.Next; page.Next == "" {
			break
		}
	}
	for _, r := range slices.Backward(newest) {
		if err := a.printRecord(r); err != nil {
			return err
		}
	}
	signIns.note(a)
	f.Oldest, f.Limit = true, 0
	for follow {
		f.Cursor = next
		page, err := trail.Page(ctx, f)
		switch {
		case errors.Is(err, client.ErrUnavailable) && ctx.Err() == nil:
			a.note("%v; still trying", err)
		case err != nil:
			return errors.Join(ctx.Err(), err)
		default:
			for _, r := range signIns.without(page.Items, len(page.Items)) {
				if err := a.printRecord(r); err != nil {
					return err
				}
			}
			if next = page.Next; next != "" {
				continue // more is there already
			}
			if next = page.Tail; next == "" {
				return errors.New("the broker did not say where to go on")
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tailInterval):
		}
	}
	return nil
}

// printRecord writes one line: columns of fixed width, since more may follow.
func (a *app) printRecord(r wire.AuditRecord) error {
	if a.output != outputTable {
		line, err := json.Marshal(r)
		if err == nil {
			_, err = fmt.Fprintf(a.out, "%s\n", line)
		}
		return err
	}
	cells := recordColumns.row(r)
	for i := range cells {
		cells[i] = printable(cell(cells[i]))
	}
	_, err := fmt.Fprintf(a.out, "%-20s %-5s %-18s %-16s %-20s %-16s %s: %s\n",
		cells[0], cells[1], cells[2], cells[3], cells[4], cells[5], cells[6], cells[7])
	return err
}

func auditExport(a *app) *cobra.Command {
	var tenant credential.Tenant
	var out string
	c := &cobra.Command{
		Use: "export", Short: "Copy the audit trail, to be kept and verified elsewhere", Args: cobra.NoArgs,
		Long: `export copies the trail of one tenant, or all of it, with the signed heads of its
chains. The copy verifies on its own: brokerctl audit verify.`,
		Example: "  brokerctl audit export --tenant acme --out acme.ndjson\n  brokerctl audit export > all.ndjson",
	}
	parsed(c.Flags(), &tenant, credential.ParseTenant, "tenant", "tenant", `only this tenant's; "system" for the broker's own`)
	c.Flags().StringVar(&out, "out", "", "new file, mode 0600; default: stdout")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			if out == "" {
				return admin.Audit().Export(ctx, tenant, a.out)
			}
			f, err := newPrivateFile(out)
			if err != nil {
				return err
			}
			err = errors.Join(admin.Audit().Export(ctx, tenant, f), f.Sync(), f.Close())
			if err != nil {
				_ = os.Remove(out) // half a trail is worth nothing
				return err
			}
			a.note("written to %s", out)
			return nil
		})
	})
	return c
}

func auditKey(a *app) *cobra.Command {
	var tenant credential.Tenant
	c := &cobra.Command{
		Use: "key", Short: "Show the broker's public audit key, to be kept apart from the exports", Args: cobra.NoArgs,
		Long: `key asks the broker, over its own connection, for the public key that signs the
heads of the audit trail, and writes it as a JWK. Keep it where whoever could
change an export can't: audit verify trusts it.`,
		Example: "  brokerctl audit key > audit-key.json\n  brokerctl audit verify acme.ndjson --key audit-key.json",
	}
	parsed(c.Flags(), &tenant, credential.ParseTenant, "tenant", "tenant", "for an operator of one tenant: that tenant")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			var first firstLine
			if err := admin.Audit().Export(ctx, tenant, &first); err != nil && !first.whole {
				return err
			}
			header, err := audit.ParseHeader(first.line)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s\n", audit.MarshalKey(header.Key))
			return err
		})
	})
	return c
}

// firstLine keeps the first line that is written to it, and wants no more.
type firstLine struct {
	line  []byte
	whole bool
}

var errEnough = errors.New("enough")

func (f *firstLine) Write(p []byte) (int, error) {
	before, _, found := bytes.Cut(p, []byte{'\n'})
	f.line = append(f.line, before...)
	if f.whole = found; found {
		return 0, errEnough
	}
	return len(p), nil
}
