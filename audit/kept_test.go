package audit_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
)

// day is how far apart the records of a history are.
const day = 24 * time.Hour

// history is a log of one chain, a record a day from noon on, that who holds
// the audit key can write as he likes. Records from number changed on differ.
func (b *book) history(c audit.Chain, records, changed int) {
	b.lines[c] = nil
	hash := c.Genesis()
	for seq := range uint64(records) {
		subject := "worker"
		if changed > 0 && int(seq)+1 >= changed {
			subject = "nobody"
		}
		r := audit.Record{Time: noon.Add(time.Duration(seq) * day), Type: "token.issued", Decision: audit.Allow, Tenant: c.Tenant, Subject: subject}
		line := audit.AppendNext(nil, &r, c.Writer, seq, hash)
		hash = audit.Hash(line)
		b.lines[c] = append(b.lines[c], string(line))
	}
}

// signed is an export of everything, records of each chain from first on, with
// fresh heads, as the broker writes it.
func (b *book) signed(t *testing.T, tenant credential.Tenant, first int, chains ...audit.Chain) string {
	t.Helper()
	var heads, lines []string
	for _, c := range chains {
		heads = append(heads, b.sign(c, uint64(first), len(b.lines[c])))
		lines = append(lines, b.lines[c][first-1:]...)
	}
	return b.export(t, tenant, heads, lines...)
}

func headsOf(export string) (heads string) {
	for line := range strings.Lines(export) {
		if strings.HasPrefix(line, `{"head":`) {
			heads += line
		}
	}
	return heads
}

// Who owns the host can rewrite the log and sign it anew, with the real key: an
// export of it verifies. Heads that were kept elsewhere find it out.
func TestKeptHeadsFindALogThatWasRewrittenAndSignedAnew(t *testing.T) {
	globexChain := audit.Chain{Tenant: globex, Writer: "w1"}
	for name, c := range map[string]struct {
		rewrite func(*book)
		tenant  credential.Tenant
		first   int // record of the new export
		chain   audit.Chain
		seq     uint64
		what    string
	}{
		"nothing": {rewrite: func(*book) {}},
		"it grew": {rewrite: func(b *book) { b.history(acmeChain, 9, 0) }},
		"one record": {
			rewrite: func(b *book) { b.history(acmeChain, 9, 3) },
			chain:   acmeChain, seq: 6, what: "rewritten since 2026-03-01T12:00:00Z",
		},
		"the newest kept record": {
			rewrite: func(b *book) { b.history(acmeChain, 9, 6) },
			chain:   acmeChain, seq: 6, what: "rewritten since",
		},
		"what came later": {rewrite: func(b *book) { b.history(acmeChain, 9, 7) }}, // no head of it was kept
		"the tail is cut": {
			rewrite: func(b *book) { b.history(acmeChain, 4, 0) },
			chain:   acmeChain, seq: 5, what: "up to 6: cut since 2026-03-01T12:00:00Z",
		},
		"a whole chain is cut": {
			rewrite: func(b *book) { delete(b.lines, globexChain) },
			chain:   globexChain, seq: 6, what: "the whole chain with it: cut since",
		},
		"in an export of one tenant": {
			tenant: acme, rewrite: func(b *book) { b.history(acmeChain, 9, 1) },
			chain: acmeChain, seq: 6, what: "rewritten since",
		},
		"in an export of another tenant": {tenant: acme, rewrite: func(b *book) { b.history(globexChain, 9, 1) }},
		"all that was kept": {
			rewrite: func(b *book) { b.history(acmeChain, 9, 0) }, first: 8,
			chain: acmeChain, seq: 6, what: "gone, and all before it: cut since",
		},
		"the beginning, up to the kept record": {rewrite: func(b *book) { b.history(acmeChain, 9, 0) }, first: 7},
		"the same, and the rest": {
			rewrite: func(b *book) { b.history(acmeChain, 9, 6) }, first: 7,
			chain: acmeChain, seq: 7, what: "rewritten since",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := write(t, 6, acmeChain, globexChain)
			b.history(acmeChain, 6, 0)
			b.history(globexChain, 6, 0)
			old := b.signed(t, credential.Tenant{}, 1, acmeChain, globexChain)
			c.rewrite(b)
			first, chains := max(c.first, 1), []audit.Chain{acmeChain}
			if c.tenant.IsZero() && c.first == 0 && len(b.lines[globexChain]) > 0 {
				chains = append(chains, globexChain)
			}
			now := b.signed(t, c.tenant, first, chains...)
			if _, err := b.verify(now); err != nil {
				t.Fatalf("signed anew, it should verify by itself: %v", err)
			}
			if c.first > 0 { // the other chain is not what this is about
				old = b.export(t, acme, []string{b.signOld(acmeChain, 6)})
			}
			for kind, file := range map[string]string{"an export": old, "its heads": headsOf(old)} {
				kept, err := audit.ReadKept(strings.NewReader(file), b.signer.Public())
				if err != nil {
					t.Fatal(err)
				}
				_, report, err := audit.VerifyExportSince(strings.NewReader(now), b.signer.Public(), kept)
				if c.what == "" {
					if err != nil || report.Kept != len(chains) {
						t.Errorf("%s: %d chains agree, %v", kind, report.Kept, err)
					}
					continue
				}
				var fault *audit.Fault
				if !errors.As(err, &fault) || fault.Chain != c.chain || fault.Seq != c.seq || !strings.Contains(fault.What, c.what) {
					t.Errorf("%s: %v; want %s, record %d, %q", kind, err, c.chain, c.seq, c.what)
				}
			}
		})
	}
}

// signOld signs the head that the chain had before it was rewritten.
func (b *book) signOld(c audit.Chain, seq int) string {
	now := b.lines[c]
	defer func() { b.lines[c] = now }()
	b.history(c, seq, 0)
	return b.sign(c, 1, seq)
}

// What retention has removed is excused by the age of the record, which in a
// quiet chain is older than any head of it.
func TestRetentionExcusesOldRecordsOnly(t *testing.T) {
	b := write(t, 3, acmeChain, ownChain)
	b.history(acmeChain, 3, 0) // noon, to two days later
	b.history(ownChain, 9, 0)
	sign := func(c audit.Chain, seq int) string {
		return b.signer.SignHead(audit.Head{
			Chain: c, First: 1, Seq: uint64(seq), Hash: audit.Hash([]byte(b.lines[c][seq-1])), Time: noon.Add(30 * day),
			Issuer: "https://broker.example",
		})
	}
	old := b.export(t, credential.Tenant{}, []string{sign(acmeChain, 3), sign(ownChain, 8)}, append(b.lines[acmeChain], b.lines[ownChain][:8]...)...)
	now := b.signed(t, credential.Tenant{}, 7, ownChain) // acme's are gone
	for name, c := range map[string]struct {
		file   string
		before time.Time
		fine   bool
	}{
		"none may be gone":             {old, time.Time{}, false},
		"records as old as these":      {old, noon.Add(2*day + time.Second), true},
		"older ones only":              {old, noon.Add(2 * day), false},
		"the head alone is younger":    {headsOf(old), noon.Add(29 * day), false},
		"the head alone is as old":     {headsOf(old), noon.Add(31 * day), true},
		"a record that is not the one": {strings.ReplaceAll(old, `"subject":"worker"`, `"subject":"walker"`), noon.Add(29 * day), false},
	} {
		kept, err := audit.ReadKept(strings.NewReader(c.file), b.signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		kept.GoneBefore = c.before
		_, report, err := audit.VerifyExportSince(strings.NewReader(now), b.signer.Public(), kept)
		if (err == nil) != c.fine || c.fine && (report.Kept != 1 || len(report.Chains) != 1) {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
	}
	// Where nothing is left to compare, nothing was verified.
	kept, err := audit.ReadKept(strings.NewReader(b.export(t, acme, []string{sign(acmeChain, 3)})), b.signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	kept.GoneBefore = noon.Add(365 * day)
	if _, _, err := audit.VerifyExportSince(strings.NewReader(now), b.signer.Public(), kept); !errors.Is(err, audit.ErrNotKept) {
		t.Errorf("nothing to compare: %v", err)
	}
}

func TestReadKeptRefuses(t *testing.T) {
	b, other := write(t, 3, acmeChain), write(t, 3, acmeChain)
	line := func(jws string) string { return `{"head":"` + jws + "\"}\n" }
	good := line(b.heads[acmeChain])
	for name, c := range map[string]struct {
		file string
		want error
	}{
		"nothing":           {"", audit.ErrExport},
		"records only":      {b.lines[acmeChain][0] + "\n", audit.ErrExport},
		"another file":      {good + "x\n", audit.ErrExport},
		"cut short":         {strings.TrimSuffix(good, "\n"), audit.ErrExport},
		"of another broker": {good + line(other.heads[acmeChain]), audit.ErrHead},
	} {
		if _, err := audit.ReadKept(strings.NewReader(c.file), b.signer.Public()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var fault *audit.Fault
	b.history(acmeChain, 3, 2)
	contradicting := good + line(b.sign(acmeChain, 1, 3))
	if _, err := audit.ReadKept(strings.NewReader(contradicting), b.signer.Public()); !errors.As(err, &fault) || fault.Seq != 3 {
		t.Errorf("contradicting each other: %v", err)
	}
	// The newest head of several exports counts.
	b = write(t, 6, acmeChain)
	for _, file := range []string{line(b.sign(acmeChain, 1, 5)) + line(b.sign(acmeChain, 1, 2)), line(b.sign(acmeChain, 1, 2)) + line(b.sign(acmeChain, 1, 5))} {
		kept, err := audit.ReadKept(strings.NewReader(file), b.signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		cut := b.export(t, acme, []string{b.sign(acmeChain, 1, 4)}, b.lines[acmeChain][:4]...)
		if _, _, err := audit.VerifyExportSince(strings.NewReader(cut), b.signer.Public(), kept); !errors.As(err, &fault) || fault.Seq != 5 {
			t.Errorf("cut: %v", err)
		}
	}
}

// What the same key has signed as something else is no head.
func TestAHeadIsOfItsType(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	signer, err := audit.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	head := signer.SignHead(audit.Head{Chain: acmeChain, First: 1, Seq: 1, Time: noon})
	parts := strings.Split(head, ".")
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	for typ, fine := range map[string]bool{audit.HeadType: true, "at+jwt": false, "JWT": false, "": false, "audit-head": false} {
		typed := strings.Replace(string(header), audit.HeadType, typ, 1)
		input := base64.RawURLEncoding.EncodeToString([]byte(typed)) + "." + parts[1]
		jws := input + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(input)))
		if _, err := audit.VerifyHead(signer.Public(), jws); (err == nil) != fine || !fine && !errors.Is(err, audit.ErrHead) {
			t.Errorf("typ %q: %v", typ, err)
		}
	}
}
