package demo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// forge shows the service tokens that no broker would issue.
func (s *stage) forge(ctx context.Context) error {
	s.chapter("Tokens that no broker would issue")
	tampered := strings.Split(s.acmeToken, ".")
	tampered[1] = swapTenant(tampered[1])
	s.read(ctx, "acme's token with the tenant changed to globex", strings.Join(tampered, "."), "globex", "401: signature")

	sign, done, err := s.stolenKey(ctx)
	if err != nil {
		return err
	}
	defer done()
	payload := s.payload()
	for _, c := range []struct{ what, payload, want string }{
		{"control: the right key signs a good payload", payload, "200: anvil, rocket skates"},
		{"two tenants, signed with the right key", strings.Replace(payload, `"tenant":"acme"`, `"tenant":"acme","tenant":"globex"`, 1), "401: malformed"},
		{"a list of tenants, signed with the right key", strings.Replace(payload, `"tenant":"acme"`, `"tenant":["acme","globex"]`, 1), "401: tenant"},
		{"a second tenant as \"Tenant\", signed with the right key", strings.Replace(payload, `"tenant":"acme"`, `"tenant":"acme","Tenant":"globex"`, 1), "401: tenant"},
	} {
		raw, err := sign([]byte(c.payload))
		if err != nil {
			return err
		}
		s.read(ctx, c.what, raw, "acme", c.want)
	}
	return nil
}

// stolenKey plays the worst case: a thief with a backup and the key-encryption
// key. It returns a function that signs anything with the active key.
func (s *stage) stolenKey(ctx context.Context) (sign func([]byte) (string, error), done func(), err error) {
	if s.vault != nil { // there is no key to copy: he has the broker's login at Vault instead
		header, _, _ := strings.Cut(s.acmeToken, ".")
		return func(payload []byte) (string, error) { return s.vault.sign(ctx, header, payload) }, func() {}, nil
	}
	copied := filepath.Join(s.folder, "stolen.db")
	if _, err := broker.Backup(ctx, s.config, copied, time.Now); err != nil {
		return nil, nil, err
	}
	st, err := bolt.Open(ctx, bolt.Options{Path: copied, Writer: "thief"})
	if err != nil {
		return nil, nil, err
	}
	kek, err := keys.LoadKeyFile(s.made.KEK)
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	ring, err := keys.New(keys.Config{Store: st, Home: keys.Sealed(kek), Policy: keys.Policy{}})
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	if err := ring.Start(ctx); err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	active, err := ring.Active()
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	sign = func(payload []byte) (string, error) { return active.Sign(ctx, payload, "at+jwt") }
	return sign, func() { _ = st.Close() }, nil
}

// payload is that of a good token of acme.
func (s *stage) payload() string {
	j, err := credential.ParseJWS(s.acmeToken)
	if err != nil {
		return ""
	}
	return string(j.UnverifiedPayload())
}

// audit shows the record, verifies it, changes one byte and is found out.
func (s *stage) audit(ctx context.Context) error {
	s.chapter("Every step is on the record, and the record holds")
	s.say("%4s  %-9s %-5s  %-15s %s", "seq", "chain", "", "account", "how, or why not")
	for r, err := range s.admin.Audit().Search(ctx, client.AuditFilter{Oldest: true}) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(r.Type, "token.") && r.Audience == ordersAPI.String() {
			tenant := r.Tenant
			if tenant == "" {
				tenant = "(broker)"
			}
			s.say("%4d  %-9s %-5s  %-15s %s", r.Seq, tenant, r.Decision, r.ClientID, r.Reason)
		}
	}
	key, err := s.auditKey(ctx)
	if err != nil {
		return err
	}
	// The head that covers what just happened is signed within a second.
	var export bytes.Buffer
	for range 50 {
		export.Reset()
		if err := s.admin.Audit().Export(ctx, acme, &export); err != nil {
			return err
		}
		_, report, err := audit.VerifyExport(bytes.NewReader(export.Bytes()), key)
		if err == nil && len(report.Chains) == 1 && report.Chains[0].Unsigned() == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	file := filepath.Join(s.folder, "acme-audit.ndjson")
	if err := os.WriteFile(file, export.Bytes(), 0o600); err != nil {
		return err
	}
	_, report, err := audit.VerifyExport(bytes.NewReader(export.Bytes()), key)
	s.expect("acme's export verifies on its own, offline", verdict(report, err), "in order")

	changed := bytes.Replace(export.Bytes(), []byte(`"client_id":"invoice-worker"`), []byte(`"client_id":"invoice-worked"`), 1)
	_, report, err = audit.VerifyExport(bytes.NewReader(changed), key)
	s.expect("one byte changed in it", verdict(report, err), "found out")
	if err != nil {
		s.say("    %v", err)
	}
	return nil
}

func verdict(r audit.Report, err error) string {
	var fault *audit.Fault
	switch {
	case errors.As(err, &fault):
		return "found out"
	case err != nil:
		return err.Error()
	case r.Records == 0:
		return "no records"
	}
	return "in order"
}

// swapTenant changes the tenant inside an encoded payload.
func swapTenant(segment string) string {
	payload, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil {
		return segment
	}
	return base64.RawURLEncoding.EncodeToString(bytes.Replace(payload, []byte(`"tenant":"acme"`), []byte(`"tenant":"globex"`), 1))
}

// auditKey is what an auditor keeps from the first export: the key that every
// later export must be signed with.
func (s *stage) auditKey(ctx context.Context) (ed25519.PublicKey, error) {
	var export bytes.Buffer
	if err := s.admin.Audit().Export(ctx, acme, &export); err != nil {
		return nil, err
	}
	first, err := export.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var header struct {
		Key json.RawMessage `json:"key"`
	}
	if err := json.Unmarshal(first, &header); err != nil {
		return nil, err
	}
	return audit.ParseKey(header.Key)
}
