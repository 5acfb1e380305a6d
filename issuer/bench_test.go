package issuer

import (
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// BenchmarkToken measures one request after the other on a real store; most of
// its time is the disk's sync. BenchmarkDecision leaves that out.
func BenchmarkToken(b *testing.B) {
	w := standard(b)
	requests := make([]TokenRequest, b.N)
	for n := range requests {
		requests[n] = w.asking("worker", nil)
	}
	b.ResetTimer()
	for _, r := range requests {
		if _, err := w.iss.Token(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTokenParallel shares syncs among 64 callers.
func BenchmarkTokenParallel(b *testing.B) {
	w := standard(b)
	requests := make(chan TokenRequest, b.N)
	for range b.N {
		requests <- w.asking("worker", nil)
	}
	b.SetParallelism(32)
	b.ResetTimer()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.iss.Token(b.Context(), <-requests); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkDecision is all that happens before the commit: shape,
// authentication with one P-256 verification, and the grant.
func BenchmarkDecision(b *testing.B) {
	w := standard(b)
	r := w.asking("worker", nil)
	b.ReportAllocs()
	for b.Loop() {
		f, failed := w.iss.readTokenForm(r.Request)
		if failed != nil {
			b.Fatal(failed)
		}
		id, failed := w.iss.authenticate(b.Context(), &f.proof)
		if failed != nil {
			b.Fatal(failed)
		}
		v, err := w.iss.match(b.Context(), &ask{account: id.account, audience: f.audience, tenant: f.tenant, scopes: f.scopes, claims: id.claims})
		if err != nil || v.code != "" {
			b.Fatal(err, v.reason)
		}
	}
}

// BenchmarkDecisionRecalled is the same for a platform JWT seen before.
func BenchmarkDecisionRecalled(b *testing.B) {
	w := standard(b)
	key := newPair(b, "p", credential.RS256)
	w.trust(registry.TrustedIssuer{ID: "p", Issuer: "https://p.example", JWKS: string(setOf(key))})
	w.accountWith("reports", registry.Credential{Kind: registry.Platform, Issuer: "p", Subject: podSubject})
	w.grant("reports", "orders", "read", tenants("acme"))
	r := w.exchange(key.sign(b, payload(w.podClaims("https://p.example"), nil), nil), nil)
	b.ReportAllocs()
	for b.Loop() {
		f, failed := w.iss.readTokenForm(r.Request)
		if failed != nil {
			b.Fatal(failed)
		}
		id, failed := w.iss.authenticate(b.Context(), &f.proof)
		if failed != nil {
			b.Fatal(failed)
		}
		v, err := w.iss.match(b.Context(), &ask{account: id.account, audience: f.audience, tenant: f.tenant, scopes: f.scopes, claims: id.claims})
		if err != nil || v.code != "" {
			b.Fatal(err, v.reason)
		}
	}
}

// BenchmarkVerify is the bare verification inside BenchmarkDecision, with the
// strict reading of the JWS.
func BenchmarkVerify(b *testing.B) {
	w := standard(b)
	raw := w.assertion("worker", nil)
	b.ReportAllocs()
	for b.Loop() {
		jws, err := credential.ParseJWS(raw)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := jws.Verify(credential.ES256, w.keys["worker"].pub.Public()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommitFunction is what each request adds to a shared commit: many
// decisions in one transaction.
func BenchmarkCommitFunction(b *testing.B) {
	w := standard(b)
	refs := []store.Ref{}
	w.must(w.st.View(b.Context(), func(r store.Reader) error {
		for _, t := range []store.Table{"accounts", "tenants", "audiences", "grants"} {
			for row, err := range r.Scan(t, "", "") {
				if err != nil {
					return err
				}
				refs = append(refs, store.Ref{Table: t, Key: row.Key, Version: row.Version})
				break
			}
		}
		return nil
	}))
	b.ReportAllocs()
	w.must(w.st.View(b.Context(), func(r store.Reader) error { return nil }))
	w.must(w.st.Update(b.Context(), func(tx store.Tx) error {
		for b.Loop() {
			if err := tx.Check(refs...); err != nil {
				return err
			}
		}
		return nil
	}))
}
