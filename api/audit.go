package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const (
	// maxExamined bounds how many records one request looks at.
	maxExamined = 50_000
	// clockSlack is how far the order of times may differ from the order of
	// positions: replicas' clocks differ, and clocks get set back.
	clockSlack = time.Hour
)

// auditTexts are the members of a record that a search may ask for, all
// compared exactly.
var auditTexts = map[string]func(*audit.Record) string{
	"type":       func(r *audit.Record) string { return r.Type },
	"decision":   func(r *audit.Record) string { return string(r.Decision) },
	"subject":    func(r *audit.Record) string { return r.Subject },
	"actor":      func(r *audit.Record) string { return r.Actor },
	"client_id":  func(r *audit.Record) string { return r.ClientID },
	"audience":   func(r *audit.Record) string { return r.Audience },
	"jti":        func(r *audit.Record) string { return r.JTI },
	"txn":        func(r *audit.Record) string { return r.Txn },
	"kid":        func(r *audit.Record) string { return r.KeyID },
	"grant":      func(r *audit.Record) string { return r.Grant },
	"request_id": func(r *audit.Record) string { return r.RequestID },
}

func auditRoutes() []route {
	search := append([]string{"tenant", "since", "until", "order"}, pageParams...)
	for name := range auditTexts {
		search = append(search, name)
	}
	return []route{
		{method: http.MethodGet, path: "/v1/audit", role: registry.RoleViewer, query: search, do: searchAudit},
		{method: http.MethodGet, path: "/v1/audit/export", role: registry.RoleViewer, query: []string{"tenant"}, do: exportAudit},
	}
}

// auditQuery is one search.
type auditQuery struct {
	oneTenant bool              // only the chains of tenant
	tenant    credential.Tenant // zero: the broker's own
	texts     []auditText
	since     time.Time // inclusive; zero: from the beginning
	until     time.Time // exclusive; zero: to the end
	oldest    bool      // oldest first
	after     uint64    // oldest first: the position after which to go on
	before    uint64    // newest first: the position before which to go on; 0: the end
	limit     int
}

type auditText struct {
	member []byte // as it stands in a line, to skip lines without parsing them
	value  string
	of     func(*audit.Record) string
}

func searchAudit(c *call) (answer, error) {
	q, err := c.auditQuery()
	if err != nil {
		return answer{}, err
	}
	var page auditPage
	err = c.store.View(c.r.Context(), func(r store.Reader) (err error) {
		page, err = q.run(c.r.Context().Err, r)
		return err
	})
	if err != nil {
		return answer{}, err
	}
	return ok(page, 0)
}

// auditPage is wire.AuditPage with the records as they were written.
type auditPage struct {
	Items    []json.RawMessage `json:"items"`
	Next     string            `json:"next,omitempty"`
	Tail     string            `json:"tail,omitempty"`
	Examined int               `json:"examined"`
}

func (c *call) auditQuery() (q auditQuery, err error) {
	if q.tenant, q.oneTenant, err = c.auditTenant(); err != nil {
		return q, err
	}
	if q.since, err = queryValue(c, "since", parseTime); err != nil {
		return q, err
	}
	if q.until, err = queryValue(c, "until", parseTime); err != nil {
		return q, err
	}
	if q.limit, err = parseLimit(c.query.get("limit")); err != nil {
		return q, err
	}
	for name, of := range auditTexts {
		if value := c.query.get(name); value != "" {
			q.texts = append(q.texts, newAuditText(name, value, of))
		}
	}
	switch c.query.get("order") {
	case "", "desc":
	case "asc":
		q.oldest = true
	default:
		return q, refuse(wire.CodeMalformed, "order", "asc or desc")
	}
	return q, q.startAt(c.query.get("cursor"))
}

// auditTenant returns whose chains may be seen: those the request asks for,
// within the bounds of the operator. An operator bounded to a tenant that asks
// for another one's is told the same whether that one exists or not.
func (c *call) auditTenant() (tenant credential.Tenant, one bool, err error) {
	asked, err := queryValue(c, "tenant", credential.ParseTenant)
	if err != nil {
		return tenant, false, err
	}
	if !c.by.Tenant.IsSystem() {
		if !asked.IsZero() && asked != c.by.Tenant {
			return tenant, false, refuse(wire.CodeForbidden, "tenant", "only the operator's own tenant")
		}
		return c.by.Tenant, true, nil
	}
	if asked.IsSystem() {
		return credential.Tenant{}, true, nil
	}
	return asked, !asked.IsZero(), nil
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, textError("not a time such as 2006-01-02T15:04:05Z")
	}
	return t, nil
}

func newAuditText(name, value string, of func(*audit.Record) string) auditText {
	t := auditText{value: value, of: of}
	for i := range len(value) {
		if b := value[i]; b < ' ' || b > '~' || b == '"' || b == '\\' {
			return t // stands in a line in an escaped form
		}
	}
	t.member = []byte(`,"` + name + `":"` + value + `"`)
	return t
}

// A cursor of a search is its order and the position it has come to.
const (
	ascending  = "asc:"
	descending = "desc:"
)

func (q *auditQuery) startAt(cursor string) error {
	position, err := parseCursor("audit", cursor)
	if err != nil || position == "" {
		return err
	}
	digits, rightOrder := strings.CutPrefix(position, descending)
	if q.oldest {
		digits, rightOrder = strings.CutPrefix(position, ascending)
	}
	at, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || !rightOrder {
		return refuse(wire.CodeMalformed, "cursor", "not a cursor of a search in this order")
	}
	if q.oldest {
		q.after = at
	} else if q.before = at; at == 0 {
		q.before = 1 // nothing comes before the first
	}
	return nil
}

func auditCursor(order string, position uint64) string {
	return makeCursor("audit", order+strconv.FormatUint(position, 10))
}

// run looks at a bounded number of records. stopped says when nobody waits for
// the outcome any more.
func (q *auditQuery) run(stopped func() error, r store.Reader) (auditPage, error) {
	end, err := r.LogEnd()
	if err != nil {
		return auditPage{}, err
	}
	page := auditPage{Items: []json.RawMessage{}}
	first, last, err := q.window(r, end)
	if err != nil {
		return page, err
	}
	if q.oldest {
		return page, q.forward(stopped, r, first, last, &page)
	}
	if q.before == 0 {
		page.Tail = auditCursor(ascending, end)
	} else {
		last = min(last, q.before-1)
	}
	return page, q.backward(stopped, r, first, last, &page)
}

// window returns the positions that can hold records of the time asked for:
// from first to last, both included.
func (q *auditQuery) window(r store.Reader, end uint64) (first, last uint64, err error) {
	oldest, found, err := nextEntry(r, 0)
	if err != nil || !found {
		return 1, 0, err
	}
	first, last = oldest.Position, end
	if !q.since.IsZero() {
		if first, err = positionAt(r, first, end, q.since.Add(-clockSlack)); err != nil {
			return 0, 0, err
		}
	}
	if !q.until.IsZero() {
		if last, err = positionAt(r, first, end, q.until.Add(clockSlack)); err != nil {
			return 0, 0, err
		}
	}
	return first, last, nil
}

// positionAt finds a position between first and end whose record is not before
// t while the one before it is; end if there is none. As long as times are out
// of order by less than clockSlack, no record before it is as late as
// t+clockSlack, and none after it as early as t-clockSlack.
func positionAt(r store.Reader, first, end uint64, t time.Time) (uint64, error) {
	var failed error
	n := sort.Search(int(end-first), func(i int) bool { //nolint:gosec // positions are far below 2^63
		e, found, err := nextEntry(r, first+uint64(i)-1) //nolint:gosec // not negative
		if err != nil || !found {
			failed = err
			return true
		}
		record, _, err := audit.Parse(e.Raw)
		if err != nil {
			failed = fmt.Errorf("record at position %d: %w", e.Position, err)
			return true
		}
		return !record.Time.Before(t)
	})
	return first + uint64(n), failed //nolint:gosec // not negative
}

func nextEntry(r store.Reader, after uint64) (store.Entry, bool, error) {
	for e, err := range r.Log(after) {
		return e, err == nil, err
	}
	return store.Entry{}, false, nil
}

func (q *auditQuery) forward(stopped func() error, r store.Reader, first, last uint64, page *auditPage) error {
	at := max(q.after, first-1)
	entries, err := q.entriesAfter(r, at)
	if err != nil {
		return err
	}
	for e, err := range entries {
		if err != nil {
			return err
		}
		if e.Position > last {
			break
		}
		if len(page.Items) == q.limit || page.Examined == maxExamined {
			page.Next = auditCursor(ascending, at)
			return nil
		}
		at = e.Position
		if err := q.examine(stopped, e, page); err != nil {
			return err
		}
	}
	page.Tail = auditCursor(ascending, max(at, last))
	return nil
}

func (q *auditQuery) backward(stopped func() error, r store.Reader, first, last uint64, page *auditPage) error {
	entries, err := q.entriesBack(r, first, last)
	if err != nil {
		return err
	}
	for e, err := range entries {
		if err != nil {
			return err
		}
		if e.Position < first {
			return nil
		}
		if len(page.Items) == q.limit || page.Examined == maxExamined {
			page.Next = auditCursor(descending, e.Position+1)
			return nil
		}
		if err := q.examine(stopped, e, page); err != nil {
			return err
		}
	}
	return nil
}

// examine adds the record to the page if it is one that was asked for.
func (q *auditQuery) examine(stopped func() error, e store.Entry, page *auditPage) error {
	page.Examined++
	if page.Examined%1024 == 0 {
		if err := stopped(); err != nil {
			return err
		}
	}
	if q.oneTenant && e.Chain.Tenant != q.tenant {
		return nil
	}
	for _, t := range q.texts {
		if t.member != nil && !bytes.Contains(e.Raw, t.member) {
			return nil
		}
	}
	record, _, err := audit.Parse(e.Raw)
	if err != nil {
		return fmt.Errorf("record at position %d: %w", e.Position, err)
	}
	if (!q.since.IsZero() && record.Time.Before(q.since)) || (!q.until.IsZero() && !record.Time.Before(q.until)) {
		return nil
	}
	for _, t := range q.texts {
		if t.of(&record) != t.value {
			return nil
		}
	}
	page.Items = append(page.Items, bytes.Clone(e.Raw))
	return nil
}
