package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

func auditVerify(a *app) *cobra.Command {
	var keyFile, headsFile string
	var retention time.Duration
	c := &cobra.Command{
		Use: "verify FILE --key FILE [--heads FILE]", Short: "Verify an exported audit trail, offline", Args: cobra.ExactArgs(1),
		Long: `verify recomputes an exported trail: every record must follow the one before it in
its chain, and heads that the broker's audit key has signed must cover all of
them: an export brings fresh ones. The first fault is named by chain and record. Exit code 7 says that
the trail is not what was written, or that the file is no trail.

The key is the broker's public audit key, got once with brokerctl audit key and
kept apart from the exports; the key that stands in the export itself proves nothing.

Whoever owns the broker's host can rewrite the trail and sign it anew with the
real key: such an export verifies. Only heads that were kept elsewhere find that
out. Give an older export with --heads, or the lines with signed heads of one;
the check then fails and names the chain that was rewritten or cut since. What
came after a chain's kept head is as good as the host. Where a backup was
restored, a chain ends where the backup does: heads signed later count more.

A trail without records is not verified. That a whole chain was left out of an
export of everything can't be seen from it: name the tenant whose records must be
there with --tenant.`,
		Example: `  brokerctl audit verify acme.ndjson --key audit-key.json --tenant acme
  brokerctl audit verify today.ndjson --key audit-key.json --heads last-week.ndjson
  grep '^{"head":' today.ndjson > heads-of-today.ndjson
  brokerctl audit verify later.ndjson --key audit-key.json --heads heads-of-today.ndjson --retention 400d`,
	}
	var tenant credential.Tenant
	parsed(c.Flags(), &tenant, credential.ParseTenant, "tenant", "tenant", `records of this tenant ("system": the broker itself) must be there`)
	c.Flags().StringVar(&keyFile, "key", "", "file with the broker's public audit key, JWK or PEM (required)")
	c.Flags().StringVar(&headsFile, "heads", "", "older export, or signed heads of one, that was kept elsewhere")
	parsed(c.Flags(), &retention, duration, "duration", "retention", "with --heads: how long the broker keeps records (audit.retention), e.g. 400d; default: none may be gone")
	required(c, "key")
	for _, name := range []string{"key", "heads"} {
		_ = c.MarkFlagFilename(name) // fails for a flag that doesn't exist
	}
	c.RunE = a.does(func(_ context.Context, args []string) error {
		data, err := os.ReadFile(keyFile) //nolint:gosec // the path is the user's own choice
		if err != nil {
			return err
		}
		key, err := audit.ParseKey(data)
		if err != nil {
			return usageError{fmt.Errorf("%s: %w", keyFile, err)}
		}
		var kept *audit.Kept
		switch {
		case headsFile != "":
			if kept, err = a.keptHeads(headsFile, key, retention); err != nil {
				return err
			}
		case retention != 0:
			return usageError{errors.New("--retention means nothing without --heads")}
		}
		in, closeIn, err := a.open(args[0])
		if err != nil {
			return err
		}
		defer closeIn()
		header, report, err := verifyExport(in, key, kept)
		if err != nil {
			return unverifiedError{err}
		}
		if err := present(report, tenant); err != nil {
			return unverifiedError{err}
		}
		return a.printReport(header, report, kept != nil)
	})
	return c
}

func verifyExport(in io.Reader, key ed25519.PublicKey, kept *audit.Kept) (audit.Header, audit.Report, error) {
	if kept == nil {
		return audit.VerifyExport(in, key)
	}
	return audit.VerifyExportSince(in, key, kept)
}

// keptHeads reads the heads that were kept apart from the broker.
func (a *app) keptHeads(path string, key ed25519.PublicKey, retention time.Duration) (*audit.Kept, error) {
	if retention < 0 {
		return nil, usageError{errors.New("--retention can't be negative")}
	}
	in, closeIn, err := a.open(path)
	if err != nil {
		return nil, err
	}
	defer closeIn()
	kept, err := audit.ReadKept(in, key)
	switch {
	case errors.Is(err, audit.ErrExport):
		return nil, fmt.Errorf("%s: %w", path, err)
	case err != nil:
		return nil, unverifiedError{fmt.Errorf("%s: %w", path, err)}
	}
	if retention > 0 {
		kept.GoneBefore = a.now().Add(-retention)
	}
	return kept, nil
}

// open opens a file for reading, or stdin for "-".
func (a *app) open(path string) (in io.Reader, closeIn func(), err error) {
	if path == "-" {
		return a.in, func() {}, nil
	}
	f, err := os.Open(path) //nolint:gosec // the path is the user's own choice
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close() }, nil // nothing was written
}

// present returns an error unless there are records: of the tenant, if one is named.
func present(report audit.Report, tenant credential.Tenant) error {
	if report.Records == 0 {
		return errors.New("there is no record in it")
	}
	for _, c := range report.Chains {
		if c.Last > 0 && (tenant.IsZero() || audit.ChainFor(tenant, c.Writer) == c.Chain) {
			return nil
		}
	}
	return fmt.Errorf("there is no record of %s in it", tenant)
}

// chainRow is one verified chain as it is shown.
type chainRow struct {
	Chain    string    `json:"chain"`
	First    uint64    `json:"first"`
	Last     uint64    `json:"last"`
	Signed   uint64    `json:"signed"`
	SignedAt time.Time `json:"signed_at,omitzero"`
}

func (a *app) printReport(header audit.Header, report audit.Report, compared bool) error {
	rows := make([]chainRow, 0, len(report.Chains))
	for _, c := range report.Chains {
		rows = append(rows, chainRow{c.String(), c.First, c.Last, c.Signed, c.SignedAt})
	}
	if a.output != outputTable {
		return a.printData(struct {
			Verified   bool       `json:"verified"`
			Issuer     string     `json:"issuer"`
			ExportedAt time.Time  `json:"exported_at"`
			Records    uint64     `json:"records"`
			Kept       int        `json:"agree_with_kept_heads,omitempty"` // chains
			Chains     []chainRow `json:"chains"`
		}{true, header.Issuer, header.ExportedAt, report.Records, report.Kept, rows})
	}
	_, err := fmt.Fprintf(a.out, "verified: %d records of %s in %d chains\n", report.Records, printable(header.Issuer), len(rows))
	if err != nil {
		return err
	}
	if compared {
		a.note("%d of the chains agree with the heads that were kept", report.Kept)
	}
	return printList(a, func(yield func(chainRow, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}, columns[chainRow]{
		[]string{"CHAIN", "FIRST", "LAST", "SIGNED", "SIGNED AT"},
		func(r chainRow) []string {
			return []string{r.Chain, fmt.Sprint(r.First), fmt.Sprint(r.Last), fmt.Sprint(r.Signed), when(r.SignedAt)}
		},
	})
}
