package broker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/testlog"
)

// writePair writes a fresh self-signed pair for 127.0.0.1 into folder.
func writePair(t *testing.T, folder, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert},
		keyFile:  {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// run runs f until the test ends and fails it if f does.
func run(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// presented connects anew and returns the name in the server's certificate.
func presented(t *testing.T, address string, most uint16) (string, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MaxVersion: most})
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func TestCertificateReload(t *testing.T) {
	folder := t.TempDir()
	certFile, keyFile := writePair(t, folder, "first")
	var log testlog.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	cert, err := loadCertificate(certFile, keyFile, logger)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newHTTPServer("public", l, http.NotFoundHandler(), Default().Timeouts, cert.config(), logger)
	run(t, s.Run)
	run(t, func(ctx context.Context) error { return cert.Run(ctx, 5*time.Millisecond) })
	address := l.Addr().String()

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	get := func() string { // on the connection that stays open all the while
		resp, err := client.Get("https://" + address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.TLS.PeerCertificates[0].Subject.CommonName
	}
	if name := get(); name != "first" {
		t.Fatalf("got %s", name)
	}
	if _, err := presented(t, address, tls.VersionTLS12); err == nil {
		t.Error("TLS 1.2 was accepted")
	}

	// A bad new pair keeps the old one. It comes at once: half a file is another one.
	if err := os.WriteFile(keyFile+".new", []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(keyFile+".new", keyFile); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return strings.Contains(log.String(), "the old one stays") })
	if name, err := presented(t, address, 0); name != "first" || err != nil {
		t.Errorf("with a broken pair: %q, %v", name, err)
	}
	if n := strings.Count(log.String(), "the old one stays"); n != 1 {
		t.Errorf("%d lines about one broken state", n)
	}

	writePair(t, folder, "second")
	waitFor(t, func() bool { name, err := presented(t, address, 0); return err == nil && name == "second" })
	if name := get(); name != "first" { // an open connection goes on undisturbed
		t.Errorf("the open connection shows %s", name)
	}
}

func TestCertificateReloadWhenTold(t *testing.T) {
	folder := t.TempDir()
	certFile, keyFile := writePair(t, folder, "first")
	cert, err := loadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	writePair(t, folder, "second")
	cert.reload(true)
	if name := cert.current.Load().Leaf.Subject.CommonName; name != "second" {
		t.Errorf("got %s", name)
	}
}

func TestCertificateThatDoesNotLoadIsNoStart(t *testing.T) {
	folder := t.TempDir()
	certFile, _ := writePair(t, folder, "one")
	_, otherKey := writePair(t, t.TempDir(), "other")
	if _, err := loadCertificate(certFile, otherKey, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a key that is not the certificate's was accepted")
	}
	if _, err := loadCertificate(filepath.Join(folder, "none"), otherKey, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file that isn't there was accepted")
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}
