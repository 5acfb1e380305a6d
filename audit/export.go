package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// ExportKind and ExportVersion begin every export.
const (
	ExportKind    = "tenantbroker-audit-export"
	ExportVersion = 1
)

// Header is the first line of an export. It is not signed: the key in it says
// which key to ask for, not which to trust.
type Header struct {
	Issuer     string
	ExportedAt time.Time
	Key        ed25519.PublicKey
	// Tenant is the one whose chains follow; System: the broker's own; zero:
	// all chains.
	Tenant credential.Tenant
}

// headerLine is a Header as JSON.
type headerLine struct {
	Kind       string            `json:"kind"`
	Version    int               `json:"version"`
	Issuer     string            `json:"issuer"`
	ExportedAt time.Time         `json:"exported_at"`
	Tenant     credential.Tenant `json:"tenant,omitzero"`
	Key        json.RawMessage   `json:"key"`
}

// Exporter writes an export: newline-delimited JSON, the header, then signed
// heads as {"head":"<JWS>"} and records as they were written, each chain in
// order and after its heads. The newest head of a chain covers its last record.
type Exporter struct{ w *bufio.Writer }

// NewExporter writes the header.
func NewExporter(w io.Writer, h Header) (*Exporter, error) {
	line, err := json.Marshal(headerLine{
		Kind: ExportKind, Version: ExportVersion, Issuer: h.Issuer, ExportedAt: h.ExportedAt.UTC().Truncate(time.Millisecond),
		Tenant: h.Tenant, Key: MarshalKey(h.Key),
	})
	if err != nil {
		return nil, fmt.Errorf("audit: export: %w", err)
	}
	e := &Exporter{bufio.NewWriterSize(w, 64<<10)}
	return e, e.line(line)
}

// Head writes a signed head. A chain's heads come before its records.
func (e *Exporter) Head(jws string) error { return e.line([]byte(`{"head":"` + jws + `"}`)) }

// Record writes a record as it was written.
func (e *Exporter) Record(line []byte) error { return e.line(line) }

// Flush writes out what is still buffered.
func (e *Exporter) Flush() error { return e.w.Flush() }

func (e *Exporter) line(line []byte) error {
	_, _ = e.w.Write(line) // bufio keeps the first error
	return e.w.WriteByte('\n')
}

// ErrExport means that it is not an export that this program can read.
var ErrExport = errors.New("audit: not an export")

// VerifyExport checks a whole export offline, with the audit key that the
// caller trusts: the records of each chain follow each other, and signed heads
// cover all of them, so that none was invented. The error is a *Fault where a
// record is at fault, ErrHead where a head is, ErrExport where the file is
// something else.
func VerifyExport(r io.Reader, trusted ed25519.PublicKey) (Header, Report, error) {
	return verifyExport(r, trusted, nil)
}

func verifyExport(r io.Reader, trusted ed25519.PublicKey, kept *Kept) (Header, Report, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 2*MaxLineLength)
	lines.Split(splitLines)
	if !lines.Scan() {
		return Header{}, Report{}, errors.Join(ErrExport, lines.Err())
	}
	header, err := parseHeader(lines.Bytes())
	if err != nil {
		return Header{}, Report{}, fmt.Errorf("%w: %w", ErrExport, err)
	}
	checker := NewChecker(trusted)
	if !header.Tenant.IsZero() {
		checker.Tenant = &header.Tenant
	}
	if kept != nil {
		checker.Keep(kept)
	}
	for line := 2; lines.Scan(); line++ {
		if err := checker.exported(lines.Bytes()); err != nil {
			if f, ok := errors.AsType[*Fault](err); ok {
				f.Line = line
			}
			return header, Report{}, err
		}
	}
	if err := lines.Err(); err != nil {
		return header, Report{}, fmt.Errorf("%w: %w", ErrExport, err)
	}
	report, err := checker.Finish()
	if err != nil {
		return header, report, err
	}
	return header, report, vouched(header, report)
}

// vouched returns an error unless the audit key has signed for every record,
// and for whose trail it is: hashes alone anybody can compute.
func vouched(h Header, report Report) error {
	for _, c := range report.Chains {
		if c.Unsigned() > 0 {
			return fault(c.Chain, max(c.Signed+1, c.First), "no signed head covers it: anybody can have written it")
		}
		if c.Issuer != h.Issuer {
			return fault(c.Chain, c.Signed, "signed for %q, the header says %q", c.Issuer, h.Issuer)
		}
	}
	return nil
}

func (c *Checker) exported(line []byte) error {
	if isRecord(line) {
		return c.Line(line)
	}
	if jws, ok := headLine(line); ok {
		return c.Head(jws)
	}
	return c.illegible(line, errNotRecord)
}

// ParseHeader reads the first line of an export. Nothing vouches for what it
// says: the key in it is worth keeping only if the line came from the broker
// itself.
func ParseHeader(line []byte) (Header, error) {
	h, err := parseHeader(line)
	if err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrExport, err)
	}
	return h, nil
}

func parseHeader(line []byte) (Header, error) {
	if _, err := credential.ParseObject(line); err != nil {
		return Header{}, err
	}
	var h headerLine
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return Header{}, err
	}
	if h.Kind != ExportKind || h.Version != ExportVersion {
		return Header{}, fmt.Errorf("kind %q version %d, expected %s version %d", h.Kind, h.Version, ExportKind, ExportVersion)
	}
	key, err := ParseKey(h.Key)
	if err != nil {
		return Header{}, err
	}
	return Header{Issuer: h.Issuer, ExportedAt: h.ExportedAt, Key: key, Tenant: h.Tenant}, nil
}

// splitLines is bufio.ScanLines for lines that end in exactly one LF: it keeps
// a CR, and refuses an end without LF, since both would be changes.
func splitLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, errors.New("the last line is cut short")
	}
	return 0, nil, nil
}
