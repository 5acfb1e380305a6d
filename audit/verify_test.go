package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
)

// book is a log of several chains, each with a signed head at its end.
type book struct {
	signer *audit.Signer
	lines  map[audit.Chain][]string
	heads  map[audit.Chain]string
}

var (
	acmeChain = audit.Chain{Tenant: acme, Writer: "w1"}
	ownChain  = audit.Chain{Writer: "w1"}
	globex    = credential.MustTenant("globex")
)

func write(t testing.TB, perChain int, chains ...audit.Chain) *book {
	t.Helper()
	_, key, _ := ed25519.GenerateKey(nil)
	signer, err := audit.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	b := &book{signer: signer, lines: map[audit.Chain][]string{}, heads: map[audit.Chain]string{}}
	for _, c := range chains {
		hash := c.Genesis()
		for seq := range uint64(perChain) {
			r := audit.Record{
				Time: noon, Type: "token.issued", Decision: audit.Allow, Tenant: c.Tenant,
				Subject: "worker", JTI: fmt.Sprintf("j%d", seq+1), RequestID: "r",
			}
			line := audit.AppendNext(nil, &r, c.Writer, seq, hash)
			hash = audit.Hash(line)
			b.lines[c] = append(b.lines[c], string(line))
		}
		b.heads[c] = b.sign(c, 1, perChain)
	}
	return b
}

// sign signs that the chain holds records first to seq.
func (b *book) sign(c audit.Chain, first uint64, seq int) string {
	return b.signer.SignHead(audit.Head{
		Chain: c, First: first, Seq: uint64(seq), Hash: audit.Hash([]byte(b.lines[c][seq-1])), Time: noon,
		Issuer: "https://broker.example",
	})
}

func (b *book) export(t testing.TB, tenant credential.Tenant, heads []string, lines ...string) string {
	t.Helper()
	var out bytes.Buffer
	e, err := audit.NewExporter(&out, audit.Header{
		Issuer: "https://broker.example", ExportedAt: noon, Key: b.signer.Public(), Tenant: tenant,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range heads {
		if err := e.Head(h); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range lines {
		if err := e.Record([]byte(l)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func (b *book) verify(export string) (audit.Report, error) {
	_, report, err := audit.VerifyExport(strings.NewReader(export), b.signer.Public())
	return report, err
}

func TestVerifyAcceptsWhatWasWritten(t *testing.T) {
	b := write(t, 5, acmeChain, ownChain)
	var mixed []string
	for i := range 5 {
		mixed = append(mixed, b.lines[acmeChain][i], b.lines[ownChain][i])
	}
	heads := []string{b.heads[acmeChain], b.sign(acmeChain, 1, 2), b.sign(ownChain, 1, 3), b.heads[ownChain]}
	export := b.export(t, credential.Tenant{}, heads, mixed...)
	header, report, err := audit.VerifyExport(strings.NewReader(export), b.signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	if header.Issuer != "https://broker.example" || !header.ExportedAt.Equal(noon.Truncate(time.Millisecond)) || !header.Key.Equal(b.signer.Public()) {
		t.Errorf("header %+v", header)
	}
	if report.Records != 10 || len(report.Chains) != 2 {
		t.Fatalf("report %+v", report)
	}
	if own := report.Chains[0]; own.Chain != ownChain || own.First != 1 || own.Last != 5 || own.Signed != 5 || own.Unsigned() != 0 {
		t.Errorf("own chain %+v", own)
	}
	if a := report.Chains[1]; a.Chain != acmeChain || a.Unsigned() != 0 || !a.SignedAt.Equal(noon) {
		t.Errorf("acme's chain %+v", a)
	}
}

// Hashes alone anybody can compute: a record that no head covers, or a trail of
// another broker, is not what the key vouches for.
func TestVerifyRefusesWhatNobodySigned(t *testing.T) {
	b := write(t, 5, acmeChain, ownChain)
	everything := slices.Concat(b.lines[acmeChain], b.lines[ownChain])
	for name, c := range map[string]struct {
		export string
		chain  audit.Chain
		seq    uint64
	}{
		"no head at all":   {b.export(t, acme, nil, b.lines[acmeChain]...), acmeChain, 1},
		"a tail":           {b.export(t, acme, []string{b.sign(acmeChain, 1, 3)}, b.lines[acmeChain]...), acmeChain, 4},
		"one of two heads": {b.export(t, credential.Tenant{}, []string{b.heads[ownChain]}, everything...), acmeChain, 1},
		"another issuer": {
			strings.Replace(b.export(t, acme, []string{b.heads[acmeChain]}, b.lines[acmeChain]...), "https://broker.example", "https://evil.example", 1),
			acmeChain, 5,
		},
	} {
		_, err := b.verify(c.export)
		if fault, ok := errors.AsType[*audit.Fault](err); !ok || fault.Chain != c.chain || fault.Seq != c.seq {
			t.Errorf("%s: %v, want a fault at record %d of %s", name, err, c.seq, c.chain)
		}
	}
}

// Whatever byte of a tenant's export is changed, the check says at which
// record.
func TestVerifyFindsEveryAlteredByte(t *testing.T) {
	const records = 3
	b := write(t, records, acmeChain)
	good := b.export(t, acme, []string{b.heads[acmeChain]}, b.lines[acmeChain]...)
	if _, err := b.verify(good); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(good, "\n")
	at := len(lines[0]) + len(lines[1])
	for seq := uint64(1); seq <= records; seq++ {
		line := lines[1+seq]
		for i := range len(line) {
			for _, flip := range []byte{0x01, 0x20, 0x80} {
				if (i+int(seq))%3 != 0 && flip != 0x01 { // enough, and three times as fast
					continue
				}
				altered := []byte(good)
				altered[at+i] ^= flip
				_, err := b.verify(string(altered))
				var fault *audit.Fault
				if errors.Is(err, audit.ErrExport) && at+i == len(good)-1 {
					continue // the file's last byte
				}
				if !errors.As(err, &fault) {
					t.Fatalf("record %d, byte %d ^ %#x: %v", seq, i, flip, err)
				}
				// The number of the record and the name of its chain are bytes too.
				named := fault.Seq == seq && fault.Chain == acmeChain
				if !named && fault.Line != int(seq)+2 {
					t.Fatalf("record %d, byte %d ^ %#x: named %v", seq, i, flip, err)
				}
			}
		}
		at += len(line)
	}
	for i := len(lines[0]); i < len(lines[0])+len(lines[1]); i++ {
		altered := []byte(good)
		altered[i] ^= 1
		if _, err := b.verify(string(altered)); err == nil {
			t.Fatalf("byte %d of the head's line changed: accepted", i-len(lines[0]))
		}
	}
}

func TestVerifyNamesTheFault(t *testing.T) {
	b := write(t, 6, acmeChain, ownChain, audit.Chain{Tenant: globex, Writer: "w1"})
	other := write(t, 6, acmeChain)
	a, g := b.lines[acmeChain], b.lines[audit.Chain{Tenant: globex, Writer: "w1"}]
	pick := func(seqs ...int) (lines []string) {
		for _, s := range seqs {
			lines = append(lines, a[s-1])
		}
		return lines
	}
	all := pick(1, 2, 3, 4, 5, 6)
	replace := func(seq int, line string) []string {
		lines := append([]string{}, all...)
		lines[seq-1] = line
		return lines
	}
	head, early := b.heads[acmeChain], b.sign(acmeChain, 1, 3)
	for name, c := range map[string]struct {
		heads []string
		lines []string
		seq   uint64
		what  string
	}{
		"one removed":                  {[]string{head}, pick(1, 2, 4, 5, 6), 3, "missing"},
		"two removed":                  {nil, pick(1, 2, 5, 6), 3, "up to 4"},
		"the first removed":            {[]string{head}, pick(2, 3, 4, 5, 6), 1, "missing"},
		"the last removed":             {[]string{head}, pick(1, 2, 3, 4, 5), 6, "signed head"},
		"all after an old head gone":   {[]string{early, head}, pick(1, 2, 3), 4, "signed head"},
		"all removed":                  {[]string{head}, nil, 1, "signed head"},
		"two swapped":                  {[]string{head}, pick(1, 3, 2, 4, 5, 6), 2, "missing"},
		"one twice":                    {[]string{head}, pick(1, 2, 2, 3, 4, 5, 6), 2, "twice"},
		"an old one at the end":        {nil, pick(1, 2, 3, 1), 1, "out of order"},
		"altered in the middle":        {nil, replace(3, strings.Replace(a[2], "worker", "walker", 1)), 3, "altered"},
		"altered before the last":      {[]string{head}, replace(5, strings.Replace(a[4], "worker", "walker", 1)), 5, "signed"},
		"altered last":                 {[]string{head}, replace(6, strings.Replace(a[5], "worker", "walker", 1)), 6, "signed head"},
		"altered last, no head":        {nil, replace(5, strings.Replace(a[4], "worker", "walker", 1)), 5, "record 6"},
		"altered where prev stands":    {nil, replace(4, a[3][:len(a[3])-4]+"0000"[:2]+a[3][len(a[3])-2:]), 4, "altered"},
		"made up from another log":     {[]string{head}, other.lines[acmeChain][:6], 0, ""},
		"replaced by another tenant's": {[]string{head}, replace(3, g[2]), 3, "another tenant"},
		"first replaced by another's":  {nil, replace(1, strings.Replace(g[0], "globex", "acme", 1)), 1, "begin"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "made up from another log" {
				c.lines = append([]string{}, c.lines...) // same content, so make it differ
				c.lines[2] = strings.Replace(c.lines[2], "worker", "walker", 1)
				c.seq, c.what = 3, "altered"
			}
			_, err := b.verify(b.export(t, acme, c.heads, c.lines...))
			var fault *audit.Fault
			if !errors.As(err, &fault) {
				t.Fatalf("not found: %v", err)
			}
			if fault.Seq != c.seq || !strings.Contains(fault.Error(), c.what) {
				t.Errorf("expected record %d, %q; got %v", c.seq, c.what, err)
			}
			if fault.What != "of another tenant's chain" && fault.Chain != acmeChain {
				t.Errorf("named chain %s", fault.Chain)
			}
		})
	}
}

func TestVerifyRetentionNeedsASignedStatement(t *testing.T) {
	b := write(t, 6, acmeChain)
	tail := b.lines[acmeChain][3:]
	report, err := b.verify(b.export(t, acme, []string{b.sign(acmeChain, 4, 6)}, tail...))
	if err != nil || report.Chains[0].First != 4 {
		t.Errorf("cut where a head says so: %+v, %v", report, err)
	}
	var fault *audit.Fault
	_, err = b.verify(b.export(t, acme, []string{b.sign(acmeChain, 3, 6)}, tail...))
	if !errors.As(err, &fault) || fault.Seq != 3 {
		t.Errorf("one more cut than a head says: %v", err)
	}
	checker := audit.NewChecker(b.signer.Public())
	checker.Trimmed = true
	if err := checker.Head(b.heads[acmeChain]); err != nil {
		t.Fatal(err)
	}
	for _, l := range tail {
		if err := checker.Line([]byte(l)); err != nil {
			t.Fatal(err)
		}
	}
	if report, err := checker.Finish(); err != nil || report.Chains[0].First != 4 || report.Chains[0].Unsigned() != 0 {
		t.Errorf("a log in its place: %+v, %v", report, err)
	}
}

func TestVerifyRefusesTheWrongKey(t *testing.T) {
	b, other := write(t, 2, acmeChain), write(t, 2, acmeChain)
	export := b.export(t, acme, []string{b.heads[acmeChain]}, b.lines[acmeChain]...)
	if _, _, err := audit.VerifyExport(strings.NewReader(export), other.signer.Public()); !errors.Is(err, audit.ErrHead) {
		t.Errorf("another key: %v", err)
	}
	if _, _, err := audit.VerifyExport(strings.NewReader(export), nil); !errors.Is(err, audit.ErrHead) {
		t.Errorf("no key: %v", err)
	}
	// Signed by another key that claims to be the trusted one.
	forged := strings.Replace(other.heads[acmeChain], ".", "x.", 1)
	if _, err := audit.VerifyHead(b.signer.Public(), forged); !errors.Is(err, audit.ErrHead) {
		t.Errorf("forged: %v", err)
	}
}

func TestVerifyExportRefusesOtherFiles(t *testing.T) {
	b := write(t, 2, acmeChain)
	good := b.export(t, acme, []string{b.heads[acmeChain]}, b.lines[acmeChain]...)
	first, rest, _ := strings.Cut(good, "\n")
	for name, export := range map[string]string{
		"empty":              "",
		"no header":          rest,
		"another kind":       strings.Replace(good, audit.ExportKind, "something-else", 1),
		"a newer version":    strings.Replace(good, `"version":1`, `"version":2`, 1),
		"an unknown member":  strings.Replace(good, `"version":1`, `"version":1,"x":1`, 1),
		"a duplicate member": strings.Replace(good, `"version":1`, `"version":1,"version":1`, 1),
		"a bad key":          strings.Replace(good, `"OKP"`, `"EC"`, 1),
		"no end of line":     strings.TrimSuffix(good, "\n"),
		"a long line":        first + "\n" + strings.Repeat("x", 3*audit.MaxLineLength) + "\n",
	} {
		if _, err := b.verify(export); !errors.Is(err, audit.ErrExport) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var fault *audit.Fault
	if _, err := b.verify(first + "\nnonsense\n" + rest); !errors.As(err, &fault) || fault.Line != 2 {
		t.Errorf("nonsense among the heads: %v", err)
	}
	if _, err := b.verify(good + "nonsense\n"); !errors.As(err, &fault) || fault.Seq != 3 {
		t.Errorf("nonsense at the end: %v", err)
	}
	late := b.export(t, acme, nil, b.lines[acmeChain]...) + `{"head":"` + b.heads[acmeChain] + "\"}\n"
	if _, err := b.verify(late); !errors.As(err, &fault) {
		t.Errorf("a head after its records: %v", err)
	}
}

func TestHeadMembers(t *testing.T) {
	b := write(t, 1, acmeChain)
	bad := []audit.Head{
		{Chain: acmeChain, First: 0, Seq: 1, Time: noon},
		{Chain: acmeChain, First: 2, Seq: 1, Time: noon},
		{Chain: audit.Chain{Tenant: acme}, First: 1, Seq: 1, Time: noon},
	}
	for _, h := range bad {
		if _, err := audit.VerifyHead(b.signer.Public(), b.signer.SignHead(h)); !errors.Is(err, audit.ErrHead) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	for _, jws := range []string{"", "a.b.c", strings.ToUpper(b.heads[acmeChain])} {
		if _, err := audit.VerifyHead(b.signer.Public(), jws); !errors.Is(err, audit.ErrHead) {
			t.Errorf("%q: %v", jws, err)
		}
	}
}

func TestKeys(t *testing.T) {
	pub, priv, _ := ed25519.GenerateKey(nil)
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	spki := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	for name, data := range map[string]string{"JWK": string(audit.MarshalKey(pub)), "PEM": "\n" + spki} {
		key, err := audit.ParseKey([]byte(data))
		if err != nil || !key.Equal(pub) {
			t.Errorf("%s: %v", name, err)
		}
	}
	jwk := string(audit.MarshalKey(pub))
	for name, data := range map[string]string{
		"nothing":     "",
		"private JWK": strings.Replace(jwk, `{`, `{"d":"AAAA",`, 1),
		"short JWK":   strings.Replace(jwk, `"x":"`, `"x":"","y":"`, 1),
		"number":      strings.Replace(jwk, `"OKP"`, `1`, 1),
		"PEM of else": strings.ReplaceAll(spki, "PUBLIC KEY", "PRIVATE KEY"),
		"broken PEM":  "-----BEGIN PUBLIC KEY-----",
		"bad DER":     string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}})),
	} {
		if _, err := audit.ParseKey([]byte(data)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	signer, err := audit.NewSigner(priv)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v %s", signer, signer, signer, signer), signer.LogValue().String()} {
		if strings.Contains(shown, fmt.Sprintf("%d", priv[0:4])[1:8]) || !strings.Contains(shown, signer.KeyID()) {
			t.Errorf("shows %q", shown)
		}
	}
	if _, err := audit.NewSigner(priv[:10]); err == nil {
		t.Error("a short key: accepted")
	}
}
