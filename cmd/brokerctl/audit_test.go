package main

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
)

// forger owns the broker's host: it has the audit key, and writes any history.
type forger struct {
	signer *audit.Signer
	folder string
}

// export writes an export with a record for each subject, all of it signed.
func (f forger) export(t *testing.T, name string, subjects ...string) string {
	t.Helper()
	chain := audit.Chain{Tenant: credential.MustTenant("acme"), Writer: "broker"}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var lines [][]byte
	hash := chain.Genesis()
	for i, subject := range subjects {
		r := audit.Record{Time: at, Type: "token.issued", Decision: audit.Allow, Tenant: chain.Tenant, Subject: subject}
		lines = append(lines, audit.AppendNext(nil, &r, chain.Writer, uint64(i), hash))
		hash = audit.Hash(lines[i])
	}
	var out bytes.Buffer
	e, err := audit.NewExporter(&out, audit.Header{Issuer: "https://broker.example", ExportedAt: at, Key: f.signer.Public()})
	if err != nil {
		t.Fatal(err)
	}
	head := audit.Head{Chain: chain, First: 1, Seq: uint64(len(lines)), Hash: hash, Time: at, Issuer: "https://broker.example"}
	if err := e.Head(f.signer.SignHead(head)); err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if err := e.Record(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	return f.file(t, name, out.Bytes())
}

func (f forger) file(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(f.folder, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A log that was rewritten and signed anew with the real key verifies by
// itself, and not beside heads that were kept elsewhere.
func TestAuditVerifyFindsARewrittenTrailByTheHeadsThatWereKept(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	signer, err := audit.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	f := forger{signer, t.TempDir()}
	public := f.file(t, "key", audit.MarshalKey(signer.Public()))
	kept := f.export(t, "kept", "mallory", "worker")
	for _, c := range []struct {
		export string
		code   int
		says   string
	}{
		{f.export(t, "grown", "mallory", "worker", "worker"), exitOK, "1 of the chains agree"},
		{f.export(t, "rewritten", "worker", "worker", "worker"), exitUnverified, "chain acme@broker, record 2: rewritten since 2026-03-01T12:00:00Z"},
		{f.export(t, "cut", "mallory"), exitUnverified, "chain acme@broker, record 2: missing: cut since"},
	} {
		a, _, stderr := testApp("", nil)
		if code := run(t.Context(), a, []string{"audit", "verify", c.export, "--key", public}); code != exitOK {
			t.Fatalf("%s by itself: exit code %d, %s", c.export, code, stderr)
		}
		a, stdout, stderr := testApp("", nil)
		code := run(t.Context(), a, []string{"audit", "verify", c.export, "--key", public, "--heads", kept})
		if code != c.code || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%s: exit code %d, %s", c.export, code, stderr)
		}
		if code != exitOK && stdout.String() != "" {
			t.Errorf("%s: says %q", c.export, stdout)
		}
	}
}
