package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// badRequest is a good request with one thing wrong, and what the broker has
// to say to it.
type badRequest struct {
	name   string
	change func(*message)
	status int
	code   string
}

// oneBodyEach are the codes whose answers must not differ by a byte.
var oneBodyEach = []string{"invalid_client", "invalid_target", "invalid_scope"}

// Whatever is wrong with a token request, it is refused with the error that
// the RFCs name, in their form, and leaves nothing but the record of the
// denial.
func TestBadInput_TokenRequests(t *testing.T) {
	w := newBadWorld(t, patient())
	cases := slices.Concat(badParameters(), badValues(), badForms(), badMediaTypes(), badMethods(), badHeaders(), badBodies(),
		badClients(), badAssertions(), badAssertionHeaders(), badSubjectTokens())
	if len(cases) < 120 {
		t.Fatalf("only %d cases", len(cases))
	}
	if got := w.send(w.tokenMessage()); got.AccessToken == "" {
		t.Fatalf("control: a good request sent in the same way: %d %s", got.status, got.body)
	}
	before, mark := w.state(), len(w.lines())
	bodies := make(map[string][]byte)
	for _, c := range cases {
		m := w.tokenMessage()
		c.change(m)
		got, err := w.trySend(m)
		if err != nil {
			t.Errorf("%s: no answer: %v", c.name, err)
			continue
		}
		refusal{t, c.name, got, m.method}.check(c.status, c.code, bodies)
	}
	if got := w.send(w.tokenMessage()); got.AccessToken == "" {
		t.Errorf("a good request after all that: %d %s", got.status, got.body)
	}
	before.compare(t, w.state())
	w.onlyDenialsSince(t, mark, "token.denied", 1, len(cases))
	t.Logf("%d bad token requests", len(cases))
}

// patient is a broker that doesn't turn a neighbourhood away for its many
// failures, or an operator for its many calls, and writes no head of the audit log while a test looks.
func patient() brokertest.Option {
	return brokertest.Configure(func(d *broker.Document) {
		d.Limits.FailuresBurst, d.Limits.FailuresPerSecond = 1_000_000, 1_000_000
		d.Limits.AdminBurst, d.Limits.AdminPerSecond = 1_000_000, 1_000_000
		d.Audit.HeadInterval = 3600e9
	})
}

// refusal is an answer that must be an OAuth error.
type refusal struct {
	t      *testing.T
	name   string
	got    answer
	method string
}

func (r refusal) check(status int, code string, bodies map[string][]byte) {
	r.t.Helper()
	r.checkHeaders(status)
	if r.method == "HEAD" { // has no body
		return
	}
	if r.got.Error != code {
		r.t.Errorf("%s: error %q, want %q: %.200s", r.name, r.got.Error, code, r.got.body)
	}
	var members map[string]string
	if err := json.Unmarshal(r.got.body, &members); err != nil {
		r.t.Errorf("%s: not an object of strings: %v", r.name, err)
	}
	if len(members) != 2 || members["error_description"] == "" {
		r.t.Errorf("%s: the members are not error and error_description: %s", r.name, r.got.body)
	}
	if !slices.Contains(oneBodyEach, code) {
		return
	}
	if first, seen := bodies[code]; !seen {
		bodies[code] = r.got.body
	} else if !bytes.Equal(first, r.got.body) {
		r.t.Errorf("%s: the body of %s differs: %s and %s", r.name, code, first, r.got.body)
	}
}

func (r refusal) checkHeaders(status int) {
	r.t.Helper()
	h := r.got.header
	if r.got.status != status {
		r.t.Errorf("%s: status %d, want %d: %.200s", r.name, r.got.status, status, r.got.body)
	}
	if h.Get("X-Request-Id") == "" {
		r.t.Errorf("%s: no X-Request-Id", r.name)
	}
	if h.Get("Cache-Control") != "no-store" {
		r.t.Errorf("%s: Cache-Control %q", r.name, h.Get("Cache-Control"))
	}
	if typ := h.Get("Content-Type"); typ != "application/json" {
		r.t.Errorf("%s: Content-Type %q", r.name, typ)
	}
	if (status == 401) != (h.Get("Www-Authenticate") != "") {
		r.t.Errorf("%s: %d with WWW-Authenticate %q", r.name, status, h.Get("Www-Authenticate"))
	}
	if (status == 405) != (h.Get("Allow") != "") {
		r.t.Errorf("%s: %d with Allow %q", r.name, status, h.Get("Allow"))
	}
}

// rows is what a store holds beside its audit log and the marks of used
// assertions: table and key → value.
type rows map[string]string

// state copies the running broker's store and reads all of the copy, so that
// no table is overlooked.
func (w *badWorld) state() rows {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "copy.db")
	file, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	err = w.Internal().Store().Snapshot(w.t.Context(), file)
	if closed := file.Close(); err != nil || closed != nil {
		w.t.Fatal(err, closed)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	found := make(rows)
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			if !bytes.HasPrefix(name, []byte("t/")) {
				return nil // the log and its indexes, used assertions
			}
			return b.ForEach(func(k, v []byte) error {
				found[string(name)+" "+string(k)] = string(v)
				return nil
			})
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(found) < 20 {
		w.t.Fatalf("the store has %d rows: this is not all of it", len(found))
	}
	return found
}

func (r rows) compare(t *testing.T, after rows) {
	t.Helper()
	for k, v := range after {
		if was, found := r[k]; !found {
			t.Errorf("a row was added: %q", k)
		} else if was != v {
			t.Errorf("a row was changed: %q", k)
		}
	}
	for k := range r {
		if _, found := after[k]; !found {
			t.Errorf("a row is gone: %q", k)
		}
	}
}

// onlyDenialsSince stops the broker, which writes what it counted, and holds
// the records after the first mark to denials of one kind, each of the refused
// requests counted, and issued tokens.
func (w *badWorld) onlyDenialsSince(t *testing.T, mark int, kind string, issued, refused int) {
	t.Helper()
	config, err := broker.Load(w.ConfigFile(), broker.NoEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	w.Stop()
	st, err := bolt.Open(t.Context(), bolt.Options{Path: config.StorePath(), Writer: "broker"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	var denied, tokens uint64
	err = st.View(t.Context(), func(r store.Reader) error {
		n := 0
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			if n++; n <= mark {
				continue
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			switch {
			case record.Type == "token.issued":
				tokens++
			case record.Type == "broker.stopped":
			case record.Type == kind && record.Decision == audit.Deny && record.Reason != "":
				denied += max(1, record.Count)
			default:
				t.Errorf("a record that is no denial: %s", e.Raw)
			}
			if bytes.ContainsFunc(e.Raw, func(r rune) bool { return r < ' ' }) || strings.Contains(string(e.Raw), "eyJ") {
				t.Errorf("a record with a control character or a token: %q", e.Raw)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if tokens != uint64(issued) {
		t.Errorf("%d tokens on record, want %d", tokens, issued)
	}
	if denied < uint64(refused) {
		t.Errorf("%d denials on record of %d refused requests", denied, refused)
	}
}
