package auditlog

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Export writes the chains of one tenant, the broker's own (System), or all
// (zero), with the heads signed so far and fresh ones that cover every record
// of it. The earlier ones matter: fresh ones alone would vouch for a history
// that was rewritten since. It reads one state of the store; records that come
// later are not in it.
func (k *Keeper) Export(ctx context.Context, w io.Writer, tenant credential.Tenant) error {
	return k.cfg.Store.View(ctx, func(r store.Reader) error {
		exporter, err := audit.NewExporter(w, audit.Header{
			Issuer: k.cfg.Issuer, ExportedAt: k.cfg.Now(), Key: k.cfg.Signer.Public(), Tenant: tenant,
		})
		if err != nil {
			return err
		}
		heads, signed, err := k.heads(ctx, r, tenant)
		if err != nil {
			return err
		}
		for _, jws := range signed {
			if err := exporter.Head(jws); err != nil {
				return err
			}
		}
		for _, h := range heads {
			if err := exporter.Head(k.cfg.Signer.SignHead(h)); err != nil {
				return err
			}
		}
		if err := records(ctx, r, exporter, tenant, heads); err != nil {
			return err
		}
		return exporter.Flush()
	})
}

func records(ctx context.Context, r store.Reader, e *audit.Exporter, tenant credential.Tenant, heads []audit.Head) error {
	write := func(entry store.Entry, err error) error {
		return errors.Join(err, ctx.Err(), e.Record(entry.Raw))
	}
	if tenant.IsZero() {
		for entry, err := range r.Log(0) {
			if err := write(entry, err); err != nil {
				return err
			}
		}
		return nil
	}
	for _, h := range heads {
		for entry, err := range r.Chain(h.Chain, 0) {
			if err := write(entry, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// heads returns the heads, as of now, of the chains that have records, and the
// heads of these that were signed before. The signed ones say which chains
// there were; the log since says which came and grew.
func (k *Keeper) heads(ctx context.Context, r store.Reader, tenant credential.Tenant) (fresh []audit.Head, signed []string, err error) {
	newest := make(map[audit.Chain]audit.Head)
	before := make(map[audit.Chain]string)
	wanted := func(c audit.Chain) bool {
		return tenant.IsZero() || audit.ChainFor(tenant, c.Writer) == c
	}
	prefix := ""
	if !tenant.IsZero() {
		prefix = audit.ChainFor(tenant, "").String()
	}
	for row, err := range r.Scan(Heads, prefix, "") {
		if err != nil {
			return nil, nil, err
		}
		h, err := audit.VerifyHead(k.cfg.Signer.Public(), string(row.Value))
		if err != nil {
			return nil, nil, fmt.Errorf("auditlog: chain %s: %w", row.Key, err)
		}
		newest[h.Chain] = h
		before[h.Chain] = string(row.Value)
	}
	from, _, err := progress(r)
	if err != nil {
		return nil, nil, err
	}
	for entry, err := range r.Log(from) {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return nil, nil, err
		}
		if wanted(entry.Chain) {
			if newest[entry.Chain], err = headAt(entry); err != nil {
				return nil, nil, err
			}
		}
	}
	fresh = make([]audit.Head, 0, len(newest))
	for chain, h := range newest {
		oldest, err := first(r, chain, 0)
		if err != nil {
			return nil, nil, err
		}
		if oldest == 0 { // all gone by retention
			continue
		}
		h.First, h.Time = oldest, k.cfg.Now()
		fresh = append(fresh, h)
		if jws, ok := before[chain]; ok {
			signed = append(signed, jws)
		}
	}
	slices.SortFunc(fresh, func(a, b audit.Head) int { return strings.Compare(a.String(), b.String()) })
	return fresh, signed, nil
}

// Verify checks the whole log as it stands, against the heads signed so far.
// The error is an *audit.Fault where a record is at fault.
func Verify(ctx context.Context, s store.Store, trusted ed25519.PublicKey) (report audit.Report, err error) {
	err = s.View(ctx, func(r store.Reader) error {
		checker := audit.NewChecker(trusted)
		checker.Trimmed = true
		for row, err := range r.Scan(Heads, "", "") {
			if err != nil {
				return err
			}
			if err := checker.Head(string(row.Value)); err != nil {
				return fmt.Errorf("auditlog: chain %s: %w", row.Key, err)
			}
		}
		for entry, err := range r.Log(0) {
			if err := errors.Join(err, ctx.Err()); err != nil {
				return err
			}
			if err := checker.Line(entry.Raw); err != nil {
				return err
			}
		}
		report, err = checker.Finish()
		return err
	})
	return report, err
}
