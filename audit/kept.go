package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"
)

// Kept are signed heads that were kept apart from the broker since they were
// signed, the newest of each chain. Whoever owns the broker's host can rewrite
// the log and sign it anew with the audit key; it disagrees with these then.
type Kept struct {
	// GoneBefore: a chain's records from before then may be gone, by
	// retention. Zero: all that a head counts must be there.
	GoneBefore time.Time

	heads map[Chain]keptHead
}

// keptHead is a head with the latest time at which its record can have been
// written.
type keptHead struct {
	Head
	written time.Time
}

// ReadKept reads an export, or the lines of exports that hold signed heads:
// {"head":"<JWS>"}. Heads that key has not signed are ErrHead, anything else
// ErrExport, and two that contradict each other a *Fault. Records are not checked:
// the heads stand for them.
func ReadKept(r io.Reader, key ed25519.PublicKey) (*Kept, error) {
	k := &Kept{heads: make(map[Chain]keptHead)}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 2*MaxLineLength)
	lines.Split(splitLines)
	for n := 1; lines.Scan(); n++ {
		line := lines.Bytes()
		if isRecord(line) {
			k.record(line)
			continue
		}
		if jws, ok := headLine(line); ok {
			h, err := VerifyHead(key, jws)
			if err == nil {
				err = k.add(h)
			}
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			continue
		}
		if _, err := ParseHeader(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExport, err)
	}
	if len(k.heads) == 0 {
		return nil, fmt.Errorf("%w: there is no signed head in it", ErrExport)
	}
	return k, nil
}

// add keeps the head if it is the newest of its chain.
func (k *Kept) add(h Head) error {
	known, found := k.heads[h.Chain]
	switch {
	case found && known.Seq == h.Seq && known.Hash != h.Hash:
		return fault(h.Chain, h.Seq, "two signed heads hold different hashes of it: this chain was rewritten between %s and %s",
			instantText(earlier(known.Time, h.Time)), instantText(later(known.Time, h.Time)))
	case !found || known.Seq < h.Seq:
		k.heads[h.Chain] = keptHead{h, h.Time}
	case known.Seq == h.Seq: // signed again
		written := earlier(known.written, h.Time)
		h.Time = later(known.Time, h.Time)
		k.heads[h.Chain] = keptHead{h, written}
	}
	return nil
}

// record learns from the record of a head when it was written: long before the
// head was signed, if the chain is a quiet one.
func (k *Kept) record(line []byte) {
	chain, err := ChainOf(line)
	if err != nil {
		return
	}
	h, found := k.heads[chain]
	if !found || Hash(line) != h.Hash {
		return
	}
	if r, _, err := Parse(line); err == nil {
		h.written = earlier(h.written, r.Time)
		k.heads[chain] = h
	}
}

// gone returns an error where a kept head counts records that the chain, which
// begins with record first (0: there is none), does not have any more.
func (k *Kept) gone(h keptHead, first uint64) error {
	if h.written.Before(k.GoneBefore) {
		return nil
	}
	what := "gone, and all before it"
	if first == 0 {
		what = "gone, and the whole chain with it"
	}
	return fault(h.Chain, h.Seq, "%s: cut since %s, when the kept head was signed, or removed by retention", what, instantText(h.Time))
}

// Keep compares with kept heads as well. It comes before anything else, and
// after Tenant is set: heads of other tenants are left out.
func (c *Checker) Keep(k *Kept) {
	c.kept = k
	for chain, h := range k.heads {
		if c.checkTenant(chain, h.Seq) == nil {
			c.chain(chain).kept = &h
		}
	}
}

// keptFirst compares a chain's first record with the kept head where that is
// of a record before it.
func (c *Checker) keptFirst(p *progress, r Record) error {
	switch h := p.kept; {
	case h == nil || h.Seq >= r.Seq:
		return nil
	case h.Seq+1 == r.Seq && hex.EncodeToString(h.Hash[:]) == r.Prev:
		p.kept, c.agree = nil, c.agree+1
		return nil
	case h.Seq+1 == r.Seq:
		return fault(h.Chain, r.Seq, "rewritten since %s: it does not follow the record of which the head signed then holds the hash", instantText(h.Time))
	default:
		p.kept = nil
		return c.kept.gone(*h, r.Seq)
	}
}

// keptReached compares the record with the kept head of it.
func (c *Checker) keptReached(p *progress) error {
	h := p.kept
	if h == nil || h.Seq != p.last {
		return nil
	}
	if h.Hash != p.hash {
		return fault(h.Chain, h.Seq, "rewritten since %s, this record or one before it: the head signed then holds another hash of it", instantText(h.Time))
	}
	p.kept, c.agree = nil, c.agree+1
	return nil
}

// keptLeft looks at a kept head that no record has come up to.
func (c *Checker) keptLeft(p *progress) error {
	h := p.kept
	switch {
	case h == nil:
		return nil
	case p.last == 0:
		return c.kept.gone(*h, 0)
	}
	return fault(h.Chain, p.last+1, "%s: cut since %s, the head signed then counts them", missing(p.last+1, h.Seq), instantText(h.Time))
}

// VerifyExportSince is VerifyExport that also finds what was rewritten or cut
// since the kept heads were signed, whoever holds the audit key. An export in
// which no chain could be compared does not verify: ErrNotKept.
func VerifyExportSince(r io.Reader, trusted ed25519.PublicKey, kept *Kept) (Header, Report, error) {
	header, report, err := verifyExport(r, trusted, kept)
	if err == nil && report.Kept == 0 {
		err = ErrNotKept
	}
	return header, report, err
}

// ErrNotKept means that no kept head is of a record in the export.
var ErrNotKept = errors.New("audit: no kept head is of a record in this export: nothing was compared")

func headLine(line []byte) (string, bool) {
	jws, begins := bytes.CutPrefix(line, []byte(`{"head":"`))
	jws, ends := bytes.CutSuffix(jws, []byte(`"}`))
	return string(jws), begins && ends
}

func instantText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
