package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// trail writes n records, alternating between acme, globex and the broker, a
// minute apart.
func trail(w *world, n int) (begin time.Time) {
	w.t.Helper()
	begin = w.clock().Add(24 * time.Hour)
	err := w.store.Update(w.t.Context(), func(tx store.Tx) error {
		for i := range n {
			r := audit.Record{
				Time: begin.Add(time.Duration(i) * time.Minute), Type: fmt.Sprintf("test.%d", i%2), Decision: audit.Allow,
				Subject: fmt.Sprintf("s%d", i), RequestID: "trail", JTI: fmt.Sprintf("j%d", i), Reason: `has "jti":"j3" in it`,
			}
			switch i % 3 {
			case 0:
				r.Tenant = credential.MustTenant("acme")
			case 1:
				r.Tenant = credential.MustTenant("globex")
			}
			tx.Append(r)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return begin
}

// search follows the cursors to the end and returns the subjects.
func search(w *world, token string, q url.Values) (subjects []string, pages int, last wire.AuditPage) {
	w.t.Helper()
	q = url.Values(cloneValues(q))
	for {
		a := w.call(token, "GET", "/v1/audit?"+q.Encode(), nil)
		if a.status != 200 {
			w.t.Fatalf("search %v: %d %s", q, a.status, a.body)
		}
		page := into[wire.AuditPage](a)
		for _, r := range page.Items {
			subjects = append(subjects, r.Subject)
		}
		if pages++; page.Next == "" || pages > 10_000 {
			return subjects, pages, page
		}
		q.Set("cursor", page.Next)
	}
}

func cloneValues(v url.Values) map[string][]string {
	out := map[string][]string{}
	for k, s := range v {
		out[k] = slices.Clone(s)
	}
	return out
}

func TestAuditSearch(t *testing.T) {
	w := newWorld(t)
	const n = 1300 // more than two blocks
	begin := trail(w, n)
	w.advance(24*time.Hour + n*time.Minute)
	token := w.rootToken()
	subjects := func(keep func(int) bool) (all []string) {
		for i := range n {
			if keep(i) {
				all = append(all, fmt.Sprintf("s%d", i))
			}
		}
		return all
	}
	rfc := func(i int) string { return begin.Add(time.Duration(i) * time.Minute).Format(time.RFC3339) }
	for name, c := range map[string]struct {
		q    url.Values
		keep func(int) bool
	}{
		"all of it":           {url.Values{}, func(int) bool { return true }},
		"one tenant":          {url.Values{"tenant": {"acme"}}, func(i int) bool { return i%3 == 0 }},
		"the broker's own":    {url.Values{"tenant": {"system"}}, func(i int) bool { return i%3 == 2 }},
		"a type":              {url.Values{"type": {"test.1"}}, func(i int) bool { return i%2 == 1 }},
		"a type of a tenant":  {url.Values{"type": {"test.1"}, "tenant": {"globex"}}, func(i int) bool { return i%2 == 1 && i%3 == 1 }},
		"a token":             {url.Values{"jti": {"j3"}}, func(i int) bool { return i == 3 }},
		"an unknown token":    {url.Values{"jti": {"j3\""}}, func(int) bool { return false }},
		"a decision":          {url.Values{"decision": {"deny"}}, func(int) bool { return false }},
		"since":               {url.Values{"since": {rfc(1000)}}, func(i int) bool { return i >= 1000 }},
		"until":               {url.Values{"until": {rfc(200)}}, func(i int) bool { return i < 200 }},
		"between":             {url.Values{"since": {rfc(500)}, "until": {rfc(600)}}, func(i int) bool { return i >= 500 && i < 600 }},
		"an empty time":       {url.Values{"since": {rfc(500)}, "until": {rfc(500)}}, func(int) bool { return false }},
		"small pages":         {url.Values{"limit": {"7"}, "tenant": {"acme"}}, func(i int) bool { return i%3 == 0 }},
		"a subject":           {url.Values{"subject": {"s77"}}, func(i int) bool { return i == 77 }},
		"a subject in a time": {url.Values{"subject": {"s77"}, "since": {rfc(78)}}, func(int) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			want := subjects(c.keep)
			c.q.Set("request_id", "trail")
			c.q.Set("order", "asc")
			got, _, last := search(w, token, c.q)
			if !slices.Equal(got, want) {
				t.Errorf("oldest first: %d, want %d: %v", len(got), len(want), got)
			}
			if last.Tail == "" {
				t.Error("oldest first: nothing to go on with later")
			}
			c.q.Set("order", "desc")
			got, _, _ = search(w, token, c.q)
			slices.Reverse(want)
			if !slices.Equal(got, want) {
				t.Errorf("newest first: %d, want %d: %v", len(got), len(want), got)
			}
		})
	}
}

func TestAuditSearchCanBeFollowed(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	first := into[wire.AuditPage](w.call(token, "GET", "/v1/audit?limit=1", nil))
	if first.Tail == "" || len(first.Items) != 1 {
		t.Fatalf("first page: %+v", first)
	}
	next := into[wire.AuditPage](w.call(token, "GET", "/v1/audit?order=asc&cursor="+first.Tail, nil))
	if len(next.Items) != 0 || next.Tail == "" {
		t.Fatalf("nothing has happened: %+v", next)
	}
	w.tenant("acme")
	next = into[wire.AuditPage](w.call(token, "GET", "/v1/audit?order=asc&cursor="+next.Tail, nil))
	if len(next.Items) != 1 || next.Items[0].Type != "tenant.created" {
		t.Errorf("what happened since: %+v", next)
	}
}

func TestAuditSearchLooksAtABoundedNumber(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	const n = maxExamined + 2000
	trail(w, n)
	for _, order := range []string{"asc", "desc"} {
		_, pages, _ := search(w, token, url.Values{"order": {order}, "subject": {"nobody"}})
		if pages != 2 {
			t.Errorf("%s: %d pages", order, pages)
		}
	}
	page := into[wire.AuditPage](w.call(token, "GET", "/v1/audit?subject=nobody", nil))
	if page.Examined != maxExamined || len(page.Items) != 0 || page.Next == "" {
		t.Errorf("page: %d examined, next %q", page.Examined, page.Next)
	}
}

func TestAnOperatorOfATenantSeesItsOwnTrailOnly(t *testing.T) {
	w := newWorld(t)
	w.tenant("acme")
	w.tenant("globex")
	token := w.operator("ann", "viewer", "acme")
	trail(w, 30)
	got, _, _ := search(w, token, url.Values{"request_id": {"trail"}})
	if len(got) != 10 {
		t.Errorf("%d records: %v", len(got), got)
	}
	out := w.call(token, "GET", "/v1/audit/export", nil)
	if out.status != 200 || out.header.Get("Content-Type") != wire.AuditExportContentType {
		t.Fatalf("export: %d %v", out.status, out.header)
	}
	if contains(out.body, "globex") || strings.Count(out.body, `"request_id":"trail"`) != 10 {
		t.Error("the export holds another tenant's records, or not all of its own")
	}
	if _, report, err := audit.VerifyExport(strings.NewReader(out.body), w.auditKey); err != nil {
		t.Errorf("the export does not verify: %v (%+v)", err, report)
	}
}

func TestBadAuditSearches(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	descending := into[wire.AuditPage](w.call(token, "GET", "/v1/audit?limit=1", nil)).Next
	for query, field := range map[string]string{
		"?limit=0": "limit", "?limit=501": "limit", "?limit=x": "limit", "?limit=+5": "limit", "?limit=05": "limit",
		"?since=yesterday": "since", "?until=2026-13-01T00:00:00Z": "until", "?order=up": "order", "?tenant=a%20b": "tenant",
		"?cursor=x": "cursor", "?cursor=" + makeCursor("tenants", "acme"): "cursor", "?nonsense=1": "nonsense",
		"?type=a&type=b": "type", "?order=asc&cursor=" + descending: "cursor", "?type=%zz": "type",
		"?cursor=" + makeCursor("audit", "desc:x"): "cursor",
	} {
		if a := w.call(token, "GET", "/v1/audit"+query, nil); a.status != 400 || a.json("field") != field {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	if a := w.call(token, "GET", "/v1/audit?cursor="+makeCursor("audit", "desc:0"), nil); a.status != 200 || a.json("next") != "" {
		t.Errorf("before the first: %d %s", a.status, a.body)
	}
}

func TestHeadOfAnExport(t *testing.T) {
	w := newWorld(t)
	if a := w.call(w.rootToken(), "HEAD", "/v1/audit/export", nil); a.status != 200 || a.body != "" {
		t.Errorf("%d %s", a.status, a.body)
	}
}
