package api

import (
	"iter"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
)

const (
	// auditBlock is how many positions are read at once when going backwards.
	auditBlock = 512
	// maxMerged is how many chains of one tenant are read side by side; of a
	// tenant with more the whole log is read.
	maxMerged = 32
)

type entries = iter.Seq2[store.Entry, error]

// entriesAfter yields, in order, the records after a position among which those
// asked for are. Of one tenant these are its chains, as far as heads were
// signed for them, and from there on the log.
func (q *auditQuery) entriesAfter(r store.Reader, at uint64) (entries, error) {
	chains, upTo, err := q.chains(r)
	if err != nil || upTo == 0 {
		return r.Log(at), err
	}
	parts := make([]entries, 0, len(chains))
	for _, c := range chains {
		seq := uint64(0)
		for e, err := range r.ChainBack(c, at) {
			if err != nil {
				return nil, err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return nil, err
			}
			seq = record.Seq
			break
		}
		parts = append(parts, r.Chain(c, seq))
	}
	indexed := merged(parts, func(a, b store.Entry) bool { return a.Position < b.Position })
	return func(yield func(store.Entry, error) bool) {
		for e, err := range indexed {
			if err == nil && e.Position > upTo {
				break
			}
			if !yield(e, err) {
				return
			}
		}
		for e, err := range r.Log(max(at, upTo)) {
			if !yield(e, err) {
				return
			}
		}
	}, nil
}

// entriesBack is entriesAfter from last on backwards. What comes before first
// is not wanted.
func (q *auditQuery) entriesBack(r store.Reader, first, last uint64) (entries, error) {
	chains, upTo, err := q.chains(r)
	if err != nil || upTo == 0 {
		return logBack(r, first, last), err
	}
	parts := make([]entries, 0, len(chains))
	for _, c := range chains {
		parts = append(parts, r.ChainBack(c, min(last, upTo)))
	}
	indexed := merged(parts, func(a, b store.Entry) bool { return a.Position > b.Position })
	return func(yield func(store.Entry, error) bool) {
		for e, err := range logBack(r, max(first, upTo+1), last) {
			if !yield(e, err) {
				return
			}
		}
		for e, err := range indexed {
			if !yield(e, err) {
				return
			}
		}
	}, nil
}

// chains returns where the records of the tenant are up to a position; upTo 0
// says to read the log.
func (q *auditQuery) chains(r store.Reader) (chains []audit.Chain, upTo uint64, err error) {
	if !q.oneTenant {
		return nil, 0, nil
	}
	if chains, upTo, err = auditlog.Chains(r, q.tenant); len(chains) > maxMerged {
		return nil, 0, err
	}
	return chains, upTo, err
}

// logBack yields the records from last back to first: it reads blocks forwards
// and walks each from its end, since the log reads one way only.
func logBack(r store.Reader, first, last uint64) entries {
	return func(yield func(store.Entry, error) bool) {
		var block []store.Entry
		for upper := last; upper >= first && upper > 0; {
			lower := max(first, upper-min(upper, auditBlock)+1)
			block = block[:0]
			for e, err := range r.Log(lower - 1) {
				if err != nil {
					yield(e, err)
					return
				}
				if e.Position > upper {
					break
				}
				block = append(block, e)
			}
			for i := len(block) - 1; i >= 0; i-- {
				if !yield(block[i], nil) {
					return
				}
			}
			upper = lower - 1
		}
	}
}

// merged yields the entries of all parts, each of which is in order.
func merged(parts []entries, before func(a, b store.Entry) bool) entries {
	if len(parts) == 1 {
		return parts[0]
	}
	return func(yield func(store.Entry, error) bool) {
		type pulled struct {
			entry store.Entry
			next  func() (store.Entry, error, bool)
		}
		var open []pulled
		for _, part := range parts {
			next, stop := iter.Pull2(part)
			defer stop()
			e, err, ok := next()
			if err != nil {
				yield(e, err)
				return
			}
			if ok {
				open = append(open, pulled{e, next})
			}
		}
		for len(open) > 0 {
			at := 0
			for i := range open {
				if before(open[i].entry, open[at].entry) {
					at = i
				}
			}
			if !yield(open[at].entry, nil) {
				return
			}
			e, err, ok := open[at].next()
			if err != nil {
				yield(e, err)
				return
			}
			if open[at].entry = e; !ok {
				open = append(open[:at], open[at+1:]...)
			}
		}
	}
}
