package auditlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// ErrTrimmed means that retention removed records which the export had yet to
// write. What was written ends too early: it does not verify.
var ErrTrimmed = fmt.Errorf("%w: retention removed records while they were being exported", store.ErrUnavailable)

// Bounds of what an export reads in one View.
const (
	exportRecords = 1000
	exportBytes   = 1 << 20 // the record that goes beyond is the last
)

// Export writes the chains of one tenant, the broker's own (System), or all
// (zero), with the heads signed so far and fresh ones that cover every record
// of it. The earlier ones matter: fresh ones alone would vouch for a history
// that was rewritten since.
//
// The export ends where the log does now; records that come later are not in
// it. It reads a little at a time and writes to w outside of any View, so that
// w may be slow. If retention overtakes it meanwhile, that is ErrTrimmed.
func (k *Keeper) Export(ctx context.Context, w io.Writer, tenant credential.Tenant) error {
	p, err := k.plan(ctx, tenant)
	if err != nil {
		return err
	}
	exporter, err := audit.NewExporter(w, audit.Header{
		Issuer: k.cfg.Issuer, ExportedAt: k.cfg.Now(), Key: k.cfg.Signer.Public(), Tenant: tenant,
	})
	if err != nil {
		return err
	}
	for _, jws := range p.signed {
		if err := exporter.Head(jws); err != nil {
			return err
		}
	}
	for _, h := range p.fresh {
		if err := exporter.Head(k.cfg.Signer.SignHead(h)); err != nil {
			return err
		}
	}
	for _, s := range p.stretches {
		if err := k.records(ctx, exporter, s); err != nil {
			return err
		}
	}
	return exporter.Flush()
}

// plan is what an export will hold, as the log stands when it begins.
type plan struct {
	fresh     []audit.Head
	signed    []string
	stretches []stretch
}

func (k *Keeper) plan(ctx context.Context, tenant credential.Tenant) (p plan, err error) {
	err = k.cfg.Store.View(ctx, func(r store.Reader) error {
		if p.fresh, p.signed, err = k.heads(ctx, r, tenant); err != nil {
			return err
		}
		end, err := r.LogEnd()
		if err != nil {
			return err
		}
		if !tenant.IsZero() {
			for _, h := range p.fresh {
				p.stretches = append(p.stretches, stretch{chain: &h.Chain, after: h.First - 1, end: end})
			}
			return nil
		}
		all := stretch{end: end}
		oldest, err := all.oldest(r)
		if err == nil && oldest != 0 {
			all.after = oldest - 1
			p.stretches = []stretch{all}
		}
		return err
	})
	return p, err
}

// records writes a stretch of the log, a batch at a time.
func (k *Keeper) records(ctx context.Context, e *audit.Exporter, s stretch) error {
	for more := true; more; {
		var batch [][]byte
		err := k.cfg.Store.View(ctx, func(r store.Reader) (err error) {
			batch, more, err = s.next(r)
			return err
		})
		if err != nil {
			return err
		}
		for _, line := range batch {
			if err := e.Record(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// stretch is what is left to be read of the log, or of one chain. Its entries
// are numbered by position or, in a chain, by sequence number.
type stretch struct {
	chain *audit.Chain // nil: the whole log
	after uint64       // the number of the last entry that was read
	end   uint64       // the position of the last one to read
}

// next copies the next batch and moves on. more says that it was not the last.
func (s *stretch) next(r store.Reader) (batch [][]byte, more bool, err error) {
	oldest, err := s.oldest(r)
	if err != nil {
		return nil, false, err
	}
	if oldest == 0 || oldest > s.after+1 {
		return nil, false, ErrTrimmed
	}
	var last store.Entry
	size := 0
	for entry, err := range s.entries(r, s.after) {
		if err != nil {
			return nil, false, err
		}
		if entry.Position > s.end {
			break
		}
		if more = len(batch) == exportRecords || size >= exportBytes; more {
			break
		}
		batch, size, last = append(batch, bytes.Clone(entry.Raw)), size+len(entry.Raw), entry
	}
	if !more {
		return batch, false, nil
	}
	at, err := s.number(last)
	if err == nil && at <= s.after {
		err = fmt.Errorf("auditlog: position %d: out of order", last.Position)
	}
	s.after = at
	return batch, true, err
}

// oldest returns the number of the oldest entry that there still is, 0 if none.
func (s *stretch) oldest(r store.Reader) (uint64, error) {
	for entry, err := range s.entries(r, 0) {
		if err != nil {
			return 0, err
		}
		return s.number(entry)
	}
	return 0, nil
}

func (s *stretch) entries(r store.Reader, after uint64) iter.Seq2[store.Entry, error] {
	if s.chain == nil {
		return r.Log(after)
	}
	return r.Chain(*s.chain, after)
}

func (s *stretch) number(entry store.Entry) (uint64, error) {
	if s.chain == nil {
		return entry.Position, nil
	}
	h, err := headAt(entry)
	return h.Seq, err
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
