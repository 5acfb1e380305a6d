package auditlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"iter"

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
	exportLookAt  = 10_000  // records, in search of chains
)

// Export writes the chains of one tenant, the broker's own (System), or all
// (zero), with the heads signed so far and fresh ones that cover every record
// of it. The earlier ones matter: fresh ones alone would vouch for a history
// that was rewritten since. The heads of a chain come just before its records.
//
// The export ends where the log does now; records that come later are not in
// it. The header is written at once, the rest as it is read: a little at a time
// and outside of any View, so that w may be slow and chains many. If retention
// overtakes it meanwhile, that is ErrTrimmed.
func (k *Keeper) Export(ctx context.Context, w io.Writer, tenant credential.Tenant) error {
	signer, err := k.key(ctx)
	if err != nil {
		return err
	}
	e := &export{Keeper: k, signer: signer, tenant: tenant}
	stretches, signed, err := e.begin(ctx)
	if err != nil {
		return err
	}
	e.out, err = audit.NewExporter(w, audit.Header{
		Issuer: k.cfg.Issuer, ExportedAt: k.cfg.Now(), Key: signer.Public(), Tenant: tenant,
	})
	if err != nil {
		return err
	}
	if err := e.out.Flush(); err != nil {
		return err
	}
	if !tenant.IsZero() {
		if stretches, err = e.newcomers(ctx, stretches, signed); err != nil {
			return err
		}
	}
	for _, s := range stretches {
		if err := e.stretch(ctx, s); err != nil {
			return err
		}
	}
	return e.out.Flush()
}

// export is one that is under way.
type export struct {
	*Keeper
	signer *audit.Signer
	tenant credential.Tenant
	out    *audit.Exporter
	end    uint64 // the position of the last record
}

// begin finds what there is to export: the whole log or, of one tenant, the
// chains whose heads were signed, and up to which position in the log they were.
func (e *export) begin(ctx context.Context) (stretches []stretch, signed uint64, err error) {
	err = e.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		if e.end, err = r.LogEnd(); err != nil {
			return err
		}
		if e.tenant.IsZero() {
			stretches = []stretch{{end: e.end}}
			return stretches[0].begin(r)
		}
		var chains []audit.Chain
		chains, signed, err = Chains(r, e.tenant)
		for _, c := range chains {
			stretches = append(stretches, stretch{chain: &c, end: e.end})
		}
		return err
	})
	return stretches, signed, err
}

// newcomers adds the tenant's chains for which no head was signed when the
// export began: they are in the log since.
func (e *export) newcomers(ctx context.Context, stretches []stretch, since uint64) ([]stretch, error) {
	known := make(map[audit.Chain]bool)
	for _, s := range stretches {
		known[*s.chain] = true
	}
	for at := since; at < e.end; {
		err := e.cfg.Store.View(ctx, func(r store.Reader) error {
			n := 0
			for entry, err := range r.Log(at) {
				if err != nil {
					return err
				}
				if n++; n > exportLookAt {
					return nil
				}
				at = entry.Position
				if c := entry.Chain; audit.ChainFor(e.tenant, c.Writer) == c && !known[c] {
					known[c] = true
					stretches = append(stretches, stretch{chain: &c, end: e.end})
				}
			}
			at = e.end
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return stretches, nil
}

// stretch writes a stretch of the log, a batch at a time.
func (e *export) stretch(ctx context.Context, s stretch) error {
	for more := true; more; {
		var b batch
		err := e.cfg.Store.View(ctx, func(r store.Reader) (err error) {
			b, more, err = s.next(r)
			return err
		})
		if err != nil {
			return err
		}
		for _, o := range b.openings {
			if err := e.heads(ctx, o); err != nil {
				return err
			}
		}
		for _, line := range b.lines {
			if err := e.out.Record(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// heads writes the head of a chain that was signed before, if there is one, and
// a fresh one.
func (e *export) heads(ctx context.Context, o opening) error {
	if o.signed != "" {
		h, err := audit.VerifyHead(e.signer.Public(), o.signed)
		if err == nil && h.Chain != o.head.Chain {
			err = fmt.Errorf("has the head of %s", h.Chain)
		}
		later := false
		if err == nil && h.Seq > o.head.Seq {
			later, err = e.later(ctx, h)
		}
		if err == nil && !later {
			err = e.out.Head(o.signed)
		}
		if err != nil {
			return fmt.Errorf("auditlog: chain %s: %w", o.head.Chain, err)
		}
	}
	o.head.Time, o.head.Issuer = e.cfg.Now(), e.cfg.Issuer
	return e.out.Head(e.signer.SignHead(o.head))
}

// later reports whether the head was signed for a record that came after the
// end of the export, and is there. One that is not there was cut off: whoever
// verifies the export has to learn that from the head.
func (e *export) later(ctx context.Context, h audit.Head) (found bool, err error) {
	err = e.cfg.Store.View(ctx, func(r store.Reader) error {
		for entry, err := range r.Chain(h.Chain, h.Seq-1) {
			if err != nil {
				return err
			}
			at, err := headAt(entry)
			found = at.Seq == h.Seq && at.Hash == h.Hash && entry.Position > e.end
			return err
		}
		return nil
	})
	return found, err
}

// stretch is what is left to be read of the log, or of one chain. Its entries
// are numbered by position or, in a chain, by sequence number.
type stretch struct {
	chain *audit.Chain // nil: the whole log
	begun bool
	start uint64 // the position of the last entry before the stretch, if there was one
	after uint64 // the number of the last entry that was read
	end   uint64 // the position of the last one to read
}

// batch is what is read of a stretch in one View.
type batch struct {
	openings []opening // of the chains that begin in it
	lines    [][]byte
}

// opening is what comes before the records of a chain.
type opening struct {
	head   audit.Head // of the records in the export
	signed string     // the head that was signed before; may be empty
}

// begin sets where the stretch begins, which retention may move until then.
func (s *stretch) begin(r store.Reader) error {
	s.begun = true
	for entry, err := range s.entries(r, 0) {
		if err != nil {
			return err
		}
		number, err := s.number(entry)
		s.start, s.after = entry.Position-1, number-1
		return err
	}
	s.start, s.after = s.end, s.end // it is empty
	return nil
}

// next copies the next batch and moves on. more says that it was not the last.
func (s *stretch) next(r store.Reader) (b batch, more bool, err error) {
	if !s.begun {
		if err := s.begin(r); err != nil {
			return b, false, err
		}
	}
	if s.start >= s.end {
		return b, false, nil
	}
	oldest, err := s.oldest(r)
	if err != nil {
		return b, false, err
	}
	if oldest == 0 || oldest > s.after+1 {
		return b, false, ErrTrimmed
	}
	var last store.Entry
	size := 0
	for entry, err := range s.entries(r, s.after) {
		if err != nil {
			return b, false, err
		}
		if entry.Position > s.end {
			break
		}
		if more = len(b.lines) == exportRecords || size >= exportBytes; more {
			break
		}
		if entry.Previous <= s.start {
			o, err := s.open(r, entry)
			if err != nil {
				return b, false, err
			}
			b.openings = append(b.openings, o)
		}
		b.lines, size, last = append(b.lines, bytes.Clone(entry.Raw)), size+len(entry.Raw), entry
	}
	if !more {
		return b, false, nil
	}
	at, err := s.number(last)
	if err == nil && at <= s.after {
		err = fmt.Errorf("auditlog: position %d: out of order", last.Position)
	}
	s.after = at
	return b, true, err
}

// open returns the heads of the chain whose first record in the stretch it is.
func (s *stretch) open(r store.Reader, entry store.Entry) (o opening, err error) {
	oldest, err := headAt(entry)
	if err != nil {
		return o, err
	}
	for newest, err := range r.ChainBack(entry.Chain, s.end) {
		if err != nil {
			return o, err
		}
		if o.head, err = headAt(newest); err != nil {
			return o, err
		}
		break
	}
	o.head.Chain, o.head.First = entry.Chain, oldest.Seq
	row, err := r.Get(Heads, entry.Chain.String())
	if errors.Is(err, store.ErrNotFound) {
		return o, nil
	}
	o.signed = string(row.Value)
	return o, err
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
