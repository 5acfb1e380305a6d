package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
)

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
