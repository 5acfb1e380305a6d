package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

func TestPasswordsOnACommandLineAreRefused(t *testing.T) {
	for _, dsn := range []string{
		"postgres://u:p@h/d", "postgresql://u:@h/d", "postgres://h/d?password=p", "postgres://h/d?p%61ssword=p", "postgres://h/d?sslpassword=p",
		"password=p", "host=h password = p", "host='h' PASSWORD='p'", "host=h sslpassword=p", `application_name='x\' password=p`,
	} {
		if err := withoutPassword(dsn); !errors.Is(err, errPassword) {
			t.Errorf("%q: %v", dsn, err)
		}
	}
	for _, dsn := range []string{"postgres://u:p w@h/d", "postgres://u:p%@h/d", "postgres://h/d?a=%zz", "postgres://u:p;d@[h/d"} {
		if err := withoutPassword(dsn); err == nil {
			t.Errorf("%q can't be read, and is let through", dsn)
		}
	}
	for _, dsn := range []string{"", "host=h dbname=d", "postgres://u@h/d?sslmode=verify-full", "passfile=/p service=s", "postgres://h1:1,h2:2/d"} {
		if err := withoutPassword(dsn); err != nil {
			t.Errorf("%q: %v", dsn, err)
		}
	}
}

// What is let through, pgx finds no password in.
func FuzzWithoutPassword(f *testing.F) {
	for _, seed := range []string{"postgres://u:p@h/d", "host=h password=p", "postgres://h?p%61ssword=p", `password\=p`, "postgres://h?a;password=p", "a=b pass\u017fword=x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		t.Setenv("PGPASSWORD", "")
		t.Setenv("PGPASSFILE", filepath.Join(t.TempDir(), "none"))
		t.Setenv("PGSERVICE", "")
		if strings.Contains(dsn, "file") || strings.Contains(dsn, "ssl") || strings.Contains(dsn, "service") {
			return // pgx would read files that the text names
		}
		err := withoutPassword(dsn)
		if err != nil {
			if !errors.Is(err, errPassword) && !errors.Is(err, errDSN) {
				t.Errorf("%q: %v", dsn, err)
			}
			return
		}
		c, err := pgx.ParseConfig(dsn)
		if err == nil && c.Password != "" {
			t.Errorf("%q holds the password %q", dsn, c.Password)
		}
	})
}

func TestErrorsOfADatabase(t *testing.T) {
	c, err := pgx.ParseConfig("host=h user=u password=s3cret dbname=d")
	if err != nil {
		t.Fatal(err)
	}
	d := &databaseConfig{c}
	for code, want := range map[string]int{
		"28P01": exitDenied, "28000": exitDenied, "3D000": exitNotFound, "57P03": exitUnavailable, "53300": exitUnavailable, "57014": exitUnavailable,
		"55P03": exitUnavailable, "42601": exitFailure,
	} {
		err := d.explain(fmt.Errorf("asked: %w", &pgconn.PgError{Code: code, Message: "for s3cret"}))
		if got, _ := classify(err); got != want || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "asked") {
			t.Errorf("%s: %d, %v", code, got, err)
		}
	}
	for _, err := range []error{pgguard.ErrNoSuch, pgguard.ErrName, pgguard.ErrLimit} {
		if got, _ := classify(d.explain(err)); got != exitUsage {
			t.Errorf("%v: %d", err, got)
		}
	}
}

func TestWhoseDatabaseAnswersIsVerifiedOrSaid(t *testing.T) {
	for dsn, want := range map[string]bool{
		"host=db.internal sslmode=disable": true, "host=db.internal": true, "host=db.internal sslmode=require": true, "host=db.internal sslmode=verify-full": false,
		"host=127.0.0.1": false, "host=::1": false, "host=localhost": false, "host=/run/postgresql": false, "host=127.0.0.1,10.0.0.1 sslmode=disable": true,
	} {
		c, err := pgx.ParseConfig(dsn + " user=u")
		if err != nil {
			t.Fatal(err)
		}
		if got := unverifiedServer(&databaseConfig{c}); got != want {
			t.Errorf("%s: %t", dsn, got)
		}
	}
}

func TestAFileWithTheDatabaseIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dsn")
	for size, good := range map[int]bool{maxDSN: true, maxDSN + 1: false} {
		if err := os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o600); err != nil {
			t.Fatal(err)
		}
		if text, err := readDSNFile(path); (err == nil) != good || good && len(text) != size {
			t.Errorf("%d bytes: %d, %v", size, len(text), err)
		}
	}
}

func TestAcceptedFindings(t *testing.T) {
	for name, text := range map[string]string{
		"a kind that is not there": "accepted: [{kind: nothing, object: a, reason: b}]",
		"no object":                "accepted: [{kind: role, reason: b}]",
		"no reason":                "accepted: [{kind: role, object: a, reason: ' '}]",
		"no date":                  "accepted: [{kind: role, object: a, reason: b, until: soon}]",
		"a time":                   "accepted: [{kind: role, object: a, reason: b, until: 2027-01-01T00:00:00Z}]",
		"twice":                    "accepted: [{kind: role, object: a, reason: b}, {kind: role, object: a, reason: c}]",
		"another member":           "accepted: [{kind: role, object: a, reason: b, severity: note}]",
		"another list":             "ignored: []",
		"two documents":            "accepted: []\n---\naccepted: []",
		"nothing":                  "",
		"an alias":                 "accepted: [&a {kind: role, object: a, reason: b}, *a]",
		"too many":                 "accepted: [" + strings.Repeat("{kind: role, object: a, reason: b},", 1+maxAccepted) + "]",
		"too long":                 strings.Repeat(" ", maxAcceptedFile+1),
	} {
		if all, err := parseAccepted([]byte(text)); err == nil {
			t.Errorf("%s: %v", name, all)
		}
	}
	all, err := parseAccepted([]byte("accepted:\n- {kind: role, object: ROLE a, reason: b, until: 2027-06-30}\n- {kind: role, object: ROLE b, reason: b}"))
	if err != nil {
		t.Fatal(err)
	}
	found := []pgguard.Finding{{Kind: "role", Object: "ROLE a"}, {Kind: "role", Object: "ROLE b"}, {Kind: "role", Object: "ROLE c"}, {Kind: "privilege", Object: "ROLE b"}}
	for now, want := range map[string]int{"2027-06-30T23:59:59Z": 2, "2027-07-01T00:00:00Z": 1} {
		at, err := time.Parse(time.RFC3339, now)
		if err != nil {
			t.Fatal(err)
		}
		left, accepted := all.split(found, at)
		if len(accepted) != want || len(left) != len(found)-want || accepted[want-1].Object != "ROLE b" {
			t.Errorf("at %s: %v, and %v are left", now, accepted, left)
		}
	}
	if all, err := parseAccepted([]byte("accepted: []")); err != nil || len(all) != 0 {
		t.Errorf("none: %v, %v", all, err)
	}
}

// Whatever is accepted has a kind, an object and a reason, and takes away no more
// than what it names.
func FuzzParseAccepted(f *testing.F) {
	f.Add([]byte("accepted: [{kind: role, object: a, reason: b, until: 2027-06-30}]"))
	f.Add([]byte("accepted:\n- &x {kind: role, object: a, reason: b}\n- *x"))
	f.Add([]byte("{}\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parseAccepted(data)
		if err != nil {
			return
		}
		for _, a := range all {
			if a.Kind == "" || strings.TrimSpace(a.Object) == "" || strings.TrimSpace(a.Reason) == "" || (a.Until == "") != a.end.IsZero() {
				t.Errorf("accepted: %+v", a)
			}
		}
		if left, _ := all.split([]pgguard.Finding{{Kind: "none", Object: "none"}}, time.Time{}); len(left) != 1 {
			t.Error("a finding of no kind is accepted")
		}
	})
}
