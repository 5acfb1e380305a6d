package kinds_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// What the query of a spec has read can't be had from the journal.
func TestTheQueryTellsNothing(t *testing.T) {
	w := newPair(t)
	w.change(func(s *secrets.Secret) {
		spec := w.spec()
		spec.Query = `DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'row ' || 'of another tenant'; END $$`
		raw, err := json.Marshal(spec)
		w.must(err)
		s.Spec = raw
	})
	w.run()
	w.ask(false)
	st := w.until("failing", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Error != "" })
	if !strings.Contains(st.Attempt.Error, "SQLSTATE 42501") || strings.Contains(st.Attempt.Error, "row of") {
		t.Errorf("%s", st.Attempt.Error)
	}
}

// A server that asks for the password itself is not told.
func TestAPasswordIsNeverTold(t *testing.T) {
	w := newPair(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	t.Cleanup(func() { _ = listener.Close() })
	heard := make(chan []byte, 100)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			if _, _, err := readStartup(client); err == nil {
				_, _ = client.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3}) // AuthenticationCleartextPassword
				said, _ := io.ReadAll(io.LimitReader(client, 5))
				heard <- said
			}
			_ = client.Close()
		}
	}()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	w.must(err)
	w.through(func(p *kinds.Postgres) { p.Port, err = strconv.Atoi(port) })
	w.must(err)
	w.run()
	if said := <-heard; len(said) > 0 && said[0] == 'p' {
		t.Error("it was told a password")
	}
}

// It shows passwords to where the spec says: more than the role operator is needed.
func TestAPairIsForWhoMayMakeClientSecrets(t *testing.T) {
	w := newPair(t)
	by := admin
	by.Roles = credential.MustScopes("operator")
	if _, err := w.m.Update(t.Context(), by, w.name, 0, func(*secrets.Secret) error { return nil }); !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("by an operator: %v", err)
	}
	by.Roles = credential.MustScopes("security")
	if _, err := w.m.Update(t.Context(), by, w.name, 0, func(*secrets.Secret) error { return nil }); err != nil {
		t.Errorf("by security: %v", err)
	}
}
