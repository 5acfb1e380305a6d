package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Fault is where a log is not what was written. Seq is the record that was
// altered, is missing, or is out of place.
type Fault struct {
	Chain Chain
	Seq   uint64
	What  string
	Line  int // of the export at which it showed; 0 at the end, or elsewhere
}

// Error implements error.
func (f *Fault) Error() string {
	s := fmt.Sprintf("audit: chain %s, record %d: %s", f.Chain, f.Seq, f.What)
	if f.Line > 0 {
		s += fmt.Sprintf(" (seen at line %d)", f.Line)
	}
	return s
}

func fault(chain Chain, seq uint64, format string, args ...any) error {
	return &Fault{Chain: chain, Seq: seq, What: fmt.Sprintf(format, args...)}
}

// Report is what a check has found in order.
type Report struct {
	Records uint64
	Kept    int           // chains that agree with the head of them that was kept
	Chains  []ChainReport // by name
}

// ChainReport is one chain of a Report.
type ChainReport struct {
	Chain
	First    uint64    // oldest record present; above 1 where retention has removed some
	Last     uint64    // newest record present
	Signed   uint64    // newest record that a signed head covers, 0 for none
	SignedAt time.Time // of that head
	Issuer   string    // the broker that the head names
}

// Unsigned returns how many records come after the newest signed head: these
// could have been cut off, or rewritten, without a trace.
func (c ChainReport) Unsigned() uint64 { return c.Last - min(c.Last, max(c.Signed, c.First-1)) }

// Checker checks records, of one or many chains, each chain in order. Heads
// come first, then records, then Finish. What it reports first is final.
type Checker struct {
	// Trimmed accepts chains whose oldest records are gone without a signed
	// head that says so. For a log in its place, which retention may have cut
	// since the last head; a copy brings its own heads.
	Trimmed bool
	// Tenant, unless nil, is the only one whose records may appear; System, or
	// zero, is the broker itself.
	Tenant *credential.Tenant

	key    ed25519.PublicKey
	chains map[Chain]*progress
	last   Chain // of the record before
	count  uint64
	kept   *Kept
	agree  int // chains that agree with their kept head
}

// progress is how far a chain has been followed.
type progress struct {
	first, last uint64
	hash        [32]byte
	// doubt: record last does not follow the one before it. Which of the two
	// was altered shows when something vouches for last.
	doubt bool
	heads []Head    // not yet reached, by Seq
	floor uint64    // the newest signed First
	until Head      // newest of all
	kept  *keptHead // not yet reached
}

// NewChecker returns a checker that trusts heads signed by key. Without a key
// heads are refused.
func NewChecker(key ed25519.PublicKey) *Checker {
	return &Checker{key: key, chains: make(map[Chain]*progress)}
}

// Head adds a signed head. The records of its chain must come after it.
func (c *Checker) Head(jws string) error {
	h, err := VerifyHead(c.key, jws)
	if err != nil {
		return err
	}
	if err := c.checkTenant(h.Chain, h.Seq); err != nil {
		return err
	}
	p := c.chain(h.Chain)
	if p.last != 0 {
		return fault(h.Chain, h.Seq, "its signed head comes after records of the chain")
	}
	p.heads = append(p.heads, h)
	slices.SortFunc(p.heads, func(a, b Head) int { return int(int64(a.Seq) - int64(b.Seq)) }) //nolint:gosec // counts
	p.floor = max(p.floor, h.First)
	p.until = p.heads[len(p.heads)-1]
	return nil
}

// Line adds the next record, without its line end.
func (c *Checker) Line(line []byte) error {
	r, chain, err := Parse(line)
	if err != nil {
		return c.illegible(line, err)
	}
	c.last = chain
	if err := c.checkTenant(chain, r.Seq); err != nil {
		return err
	}
	p := c.chain(chain)
	switch {
	case p.last == 0:
		if err := c.start(chain, p, r); err != nil {
			return err
		}
	case r.Seq <= p.last:
		return fault(chain, r.Seq, "stands there twice, or out of order")
	case r.Seq > p.last+1:
		return fault(chain, p.last+1, "%s", missing(p.last+1, r.Seq-1))
	default:
		if err := p.follow(chain, r); err != nil {
			return err
		}
	}
	p.last, p.hash = r.Seq, Hash(line)
	c.count++
	if err := c.keptReached(p); err != nil {
		return err
	}
	return p.reached(chain)
}

// start takes the first record of a chain.
func (c *Checker) start(chain Chain, p *progress, r Record) error {
	p.first = r.Seq
	if err := c.keptFirst(p, r); err != nil {
		return err
	}
	if r.Seq == 1 {
		if genesis := chain.Genesis(); r.Prev != hex.EncodeToString(genesis[:]) {
			return fault(chain, 1, "altered, or of another chain: it does not begin this one")
		}
		return nil
	}
	if !c.Trimmed && r.Seq > max(p.floor, 1) {
		return fault(chain, max(p.floor, 1), "%s", missing(max(p.floor, 1), r.Seq-1))
	}
	return nil
}

// follow compares the record with the hash of the one before.
func (p *progress) follow(chain Chain, r Record) error {
	matches := r.Prev == hex.EncodeToString(p.hash[:])
	switch {
	case p.doubt && matches: // this one vouches for the last
		return fault(chain, p.last-1, "altered: record %d holds another hash of it", p.last)
	case p.doubt:
		return fault(chain, p.last, "altered: neither neighbour fits")
	}
	p.doubt = !matches
	return nil
}

// reached compares with the signed heads at this record.
func (p *progress) reached(chain Chain) error {
	for len(p.heads) > 0 && p.heads[0].Seq <= p.last {
		if p.heads[0].Seq == p.last {
			if p.heads[0].Hash != p.hash {
				return fault(chain, p.last, "altered: its signed head holds another hash of it")
			}
			if p.doubt {
				return fault(chain, p.last-1, "altered: record %d, which is signed, holds another hash of it", p.last)
			}
		}
		p.heads = p.heads[1:]
	}
	return nil
}

// Finish reports once all records are in.
func (c *Checker) Finish() (Report, error) {
	report := Report{Records: c.count, Kept: c.agree}
	chains := slices.SortedFunc(maps.Keys(c.chains), func(a, b Chain) int { return strings.Compare(a.String(), b.String()) })
	for _, chain := range chains {
		if p := c.chains[chain]; p.last > 0 || p.until.Seq > 0 { // or known from a kept head only
			report.Chains = append(report.Chains, ChainReport{
				Chain: chain, First: p.first, Last: p.last, Signed: p.until.Seq, SignedAt: p.until.Time, Issuer: p.until.Issuer,
			})
		}
	}
	for _, chain := range chains {
		p := c.chains[chain]
		if p.doubt {
			return report, fault(chain, p.last-1, "this one or record %d was altered", p.last)
		}
		if err := c.keptLeft(p); err != nil {
			return report, err
		}
		if len(p.heads) > 0 {
			if p.last == 0 && c.Trimmed { // all gone by retention
				continue
			}
			from := max(p.last+1, p.floor)
			return report, fault(chain, from, "%s; a signed head counts them", missing(from, p.until.Seq))
		}
	}
	return report, nil
}

func missing(from, to uint64) string {
	if from >= to {
		return "missing"
	}
	return fmt.Sprintf("missing, as are all up to %d", to)
}

func (c *Checker) chain(chain Chain) *progress {
	p := c.chains[chain]
	if p == nil {
		p = new(progress)
		c.chains[chain] = p
	}
	return p
}

func (c *Checker) checkTenant(chain Chain, seq uint64) error {
	if c.Tenant != nil && ChainFor(*c.Tenant, chain.Writer) != chain {
		return fault(chain, seq, "of another tenant's chain")
	}
	return nil
}

// illegible names a line that is no record as well as it can: by the chain
// and number that it still shows, or as the next one of the chain before it.
func (c *Checker) illegible(line []byte, cause error) error {
	chain, err := ChainOf(line)
	if err != nil {
		chain = c.last
		for only := range c.chains {
			if len(c.chains) == 1 {
				chain = only
			}
		}
	}
	seq := uint64(1)
	if p := c.chains[chain]; p != nil {
		seq = p.last + 1
	}
	return fault(chain, seq, "altered: %s", cause)
}

var errNotRecord = errors.New("audit: neither a head nor a record")

// isRecord tells a record's line from the others of an export.
func isRecord(line []byte) bool { return bytes.HasPrefix(line, []byte(`{"seq":`)) }
