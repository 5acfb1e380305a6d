package vault_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// Who can read the file logs in as the broker.
func TestAFileThatEverybodyMayOpenIsRefused(t *testing.T) {
	file := write(t, "secret", "s3cr3t-0123456789")
	key := write(t, "key.pem", "")
	for name, login := range map[string]vault.Login{
		"secret id":         vault.AppRole{RoleID: "r", SecretIDFile: file},
		"wrapped secret id": vault.AppRole{RoleID: "r", SecretIDFile: file, Wrapped: true},
		"token":             vault.TokenFile{Path: file},
		"private key":       vault.Certificate{CertFile: file, KeyFile: key},
	} {
		for _, mode := range []os.FileMode{0o604, 0o602, 0o601, 0o644} {
			must(t, errors.Join(os.Chmod(file, mode), os.Chmod(key, mode)))
			config := vault.Config{Address: "http://127.0.0.1:1", Login: login}
			want := fmt.Sprintf("mode %04o", mode)
			if err := config.CheckFiles(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("%s, checked: %v", name, err)
			}
			c, err := vault.New(config)
			must(t, err)
			if err := c.Login(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, logged in: %v", name, err)
			}
		}
		must(t, errors.Join(os.Chmod(file, 0o640), os.Chmod(key, 0o640))) // as Kubernetes has it
		if err := (vault.Config{Address: "http://127.0.0.1:1", Login: login}).CheckFiles(); err != nil && strings.Contains(err.Error(), "mode") {
			t.Errorf("%s, for the group: %v", name, err)
		}
	}
	must(t, os.Chmod(file, 0o644)) // a platform writes it
	if err := (vault.Config{Address: "http://127.0.0.1:1", Login: vault.JWT{Role: "r", JWTFile: file}}).CheckFiles(); err != nil {
		t.Errorf("a JWT: %v", err)
	}
}

func TestRenewedAuthoritiesCountForTheNextConnection(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"initialized":true,"sealed":false,"standby":false}`))
	}))
	t.Cleanup(s.Close)
	right := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	file := write(t, "ca.pem", authority(t))
	c, err := vault.New(vault.Config{Address: s.URL, CAFile: file, Login: vault.Token{Secret: secret("x")}})
	must(t, err)
	try := func() error {
		s.CloseClientConnections()
		_, err := c.Health(t.Context())
		return err
	}
	if err := try(); !errors.Is(err, vault.ErrUnavailable) || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("another authority: %v", err)
	}
	write(t, file, right)
	must(t, try())
	for _, half := range []string{"", right[:50]} { // it is being written
		write(t, file, half)
		must(t, try())
	}
	must(t, os.Remove(file))
	must(t, try())
	write(t, file, authority(t))
	if err := try(); err == nil {
		t.Error("an authority that was taken away counts on")
	}
}

// authority returns the certificate of one that has signed nothing.
func authority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// The broker's own call used the wrapping token up, and the answer was lost:
// nobody else is to blame.
func TestAnUnwrappingWhoseAnswerWasLostIsNoTheft(t *testing.T) {
	var used atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/unwrap"):
			used.Store(true)
			panic(http.ErrAbortHandler)
		case used.Load():
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"errors":["wrapping token is not valid or does not exist"]}`))
		default:
			_, _ = w.Write([]byte(`{"data":{"creation_path":"auth/approle/role/broker/secret-id"}}`))
		}
	}))
	t.Cleanup(s.Close)
	var log bytes.Buffer
	file := write(t, "wrapped", "hvs.one-0123456789")
	c, err := vault.New(vault.Config{
		Address: s.URL, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Login: vault.AppRole{RoleID: "r", SecretIDFile: file, Wrapped: true},
	})
	must(t, err)
	if err := c.Login(t.Context()); !errors.Is(err, vault.ErrUncertain) {
		t.Fatalf("%v", err)
	}
	if err := c.Login(t.Context()); !errors.Is(err, vault.ErrUnwrapped) || !strings.Contains(err.Error(), "answer was lost") {
		t.Errorf("%v", err)
	}
	if strings.Contains(log.String(), "SECURITY") || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the log says: %s", log.String())
	}
	write(t, file, "hvs.two-0123456789") // another one, which somebody used
	if err := c.Login(t.Context()); !errors.Is(err, vault.ErrUnwrapped) || !strings.Contains(log.String(), "SECURITY") {
		t.Errorf("%v; the log says: %s", err, log.String())
	}
}
