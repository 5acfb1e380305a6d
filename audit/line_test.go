package audit_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
)

var (
	acme  = credential.MustTenant("acme")
	noon  = time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC)
	zeros = strings.Repeat("0", 64)
)

func full() audit.Record {
	return audit.Record{
		Seq: 7, Time: noon, Type: "token.issued", Decision: audit.Allow, Reason: `said "yes"`, Tenant: acme,
		Subject: "worker", Actor: "front", ClientID: "front", Resource: audit.Resource{Type: "grant", ID: "g_1"},
		Audience: "https://orders.example", Scope: "a b", JTI: "j", Txn: "t", KeyID: "k", Grant: "g_1",
		Expires: noon.Add(time.Minute), IP: "10.0.0.1", RequestID: "r", Count: 3, Prev: zeros,
	}
}

func TestLineIsCanonical(t *testing.T) {
	r := full()
	want := `{"seq":7,"writer":"w1","tenant":"acme","time":"2026-03-01T12:00:00.123Z","type":"token.issued",` +
		`"decision":"allow","reason":"said \"yes\"","subject":"worker","actor":"front","client_id":"front",` +
		`"resource":{"type":"grant","id":"g_1"},"audience":"https://orders.example","scope":"a b","jti":"j","txn":"t",` +
		`"kid":"k","grant":"g_1","expires":"2026-03-01T12:01:00.123Z","ip":"10.0.0.1","request_id":"r","count":3,` +
		`"prev":"` + zeros + `"}`
	if got := string(audit.AppendLine(nil, &r, "w1")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r = audit.Record{Seq: 1, Time: noon, Prev: zeros}
	want = `{"seq":1,"writer":"w1","time":"2026-03-01T12:00:00.123Z","prev":"` + zeros + `"}`
	if got := string(audit.AppendLine(nil, &r, "w1")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestLineAllocatesNothing(t *testing.T) {
	r, b := full(), make([]byte, 0, 4096)
	var hash [32]byte
	if n := testing.AllocsPerRun(100, func() { b = audit.AppendNext(b[:0], &r, "w1", 6, hash) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestLineNeverFails(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat(string(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")), rapid.IntRange(0, 60).Draw(t, "times"))
		})
		r := audit.Record{
			Seq: rapid.Uint64Min(1).Draw(t, "seq"), Time: noon, Tenant: acme, Prev: zeros,
			Type: text.Draw(t, "type"), Reason: text.Draw(t, "reason"), Subject: text.Draw(t, "subject"),
			Actor: text.Draw(t, "actor"), ClientID: text.Draw(t, "client"), Scope: text.Draw(t, "scope"),
			Resource: audit.Resource{Type: text.Draw(t, "kind"), ID: text.Draw(t, "id")},
			Audience: text.Draw(t, "audience"), JTI: text.Draw(t, "jti"), Txn: text.Draw(t, "txn"),
			KeyID: text.Draw(t, "kid"), Grant: text.Draw(t, "grant"), IP: text.Draw(t, "ip"), RequestID: text.Draw(t, "request"),
		}
		line := audit.AppendLine(nil, &r, "w1")
		if !utf8.Valid(line) || len(line) > audit.MaxLineLength {
			t.Fatalf("%d bytes, UTF-8: %v", len(line), utf8.Valid(line))
		}
		back, chain, err := audit.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if chain != (audit.Chain{Tenant: acme, Writer: "w1"}) {
			t.Fatalf("chain %s", chain)
		}
		if again := audit.AppendLine(nil, &back, "w1"); string(again) != string(line) {
			t.Fatalf("read back as another record:\n%s\n%s", line, again)
		}
		if len(r.Type) <= 80 && utf8.ValidString(r.Type) && back.Type != r.Type {
			t.Fatalf("type %q read back as %q", r.Type, back.Type)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	r := full()
	good := string(audit.AppendLine(nil, &r, "w1"))
	if _, _, err := audit.Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, line := range map[string]string{
		"nothing":               "",
		"a space":               strings.Replace(good, `,"writer"`, `, "writer"`, 1),
		"another order":         strings.Replace(good, `"jti":"j","txn":"t"`, `"txn":"t","jti":"j"`, 1),
		"another escape":        strings.Replace(good, `"worker"`, `"\u0077orker"`, 1),
		"an unknown member":     strings.Replace(good, `"jti"`, `"jto"`, 1),
		"a duplicate member":    strings.Replace(good, `"txn":"t"`, `"jti":"t"`, 1),
		"an empty text":         strings.Replace(good, `"jti":"j"`, `"jti":""`, 1),
		"a leading zero":        strings.Replace(good, `"seq":7`, `"seq":07`, 1),
		"seq 0":                 strings.Replace(good, `"seq":7`, `"seq":0`, 1),
		"seq as text":           strings.Replace(good, `"seq":7`, `"seq":"7"`, 1),
		"count 0":               strings.Replace(good, `"count":3`, `"count":0`, 1),
		"no writer":             strings.Replace(good, `"writer":"w1",`, ``, 1),
		"a bad writer":          strings.Replace(good, `"w1"`, `"w@1"`, 1),
		"a bad tenant":          strings.Replace(good, `"acme"`, `"*"`, 1),
		"no time":               strings.Replace(good, `"time":"2026-03-01T12:00:00.123Z",`, ``, 1),
		"time without fraction": strings.Replace(good, `00.123Z"`, `00Z"`, 1),
		"time in another zone":  strings.Replace(good, `00.123Z"`, `00.123+00:00"`, 1),
		"upper-case prev":       strings.Replace(good, zeros, strings.Repeat("A", 64), 1),
		"short prev":            strings.Replace(good, zeros, zeros[:62], 1),
		"resource as text":      strings.Replace(good, `{"type":"grant","id":"g_1"}`, `"x"`, 1),
		"resource with more":    strings.Replace(good, `"id":"g_1"}`, `"id":"g_1","x":"y"}`, 1),
		"resource with number":  strings.Replace(good, `"id":"g_1"}`, `"id":1}`, 1),
		"an end of line":        good + "\n",
		"too long":              strings.Replace(good, `"worker"`, `"`+strings.Repeat("w", audit.MaxLineLength)+`"`, 1),
		"text over its limit":   strings.Replace(good, `"worker"`, `"`+strings.Repeat("w", audit.MaxTextLength+1)+`"`, 1),
	} {
		if _, _, err := audit.Parse([]byte(line)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestChainNames(t *testing.T) {
	for _, name := range []string{"acme@w1", "@w1", "a.b-c_d@W.1", "@system"} {
		c, err := audit.ParseChain(name)
		if err != nil || c.String() != name {
			t.Errorf("%s: %s, %v", name, c, err)
		}
	}
	for _, name := range []string{"", "acme", "acme@", "system@w1", "a b@w1", "acme@w1@w2", "System@w1"} {
		if c, err := audit.ParseChain(name); err == nil {
			t.Errorf("%q: accepted as %s", name, c)
		}
	}
	if got := audit.ChainFor(credential.System, "w1"); !got.Tenant.IsZero() {
		t.Errorf("the reserved tenant has a chain of its own: %s", got)
	}
	if (audit.Chain{Tenant: acme, Writer: "w1"}).Genesis() == (audit.Chain{Tenant: acme, Writer: "w2"}).Genesis() {
		t.Error("two chains begin alike")
	}
}

func FuzzParse(f *testing.F) {
	r := full()
	f.Add(audit.AppendLine(nil, &r, "w1"))
	f.Add([]byte(`{"seq":1,"writer":"w1","time":"2026-03-01T12:00:00.123Z","prev":"` + zeros + `"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, chain, err := audit.Parse(line)
		if err != nil {
			return
		}
		if again := audit.AppendLine(nil, &r, chain.Writer); string(again) != string(line) {
			t.Fatalf("two lines for one record:\n%s\n%s", line, again)
		}
		if quick, err := audit.ChainOf(line); err != nil || quick != chain {
			t.Fatalf("ChainOf: %s, %v; Parse: %s", quick, err, chain)
		}
		if !json.Valid(line) {
			t.Fatal("not JSON")
		}
	})
}

func BenchmarkAppendNext(b *testing.B) {
	r, buf := full(), make([]byte, 0, 4096)
	var hash [32]byte
	b.ReportAllocs()
	for b.Loop() {
		buf = audit.AppendNext(buf[:0], &r, "w1", 6, hash)
	}
}
