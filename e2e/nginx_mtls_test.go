package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
)

// certified makes a certificate and its key as files, signed by another one or,
// without, by itself.
func certified(t *testing.T, folder, name string, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: by == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	template.Subject.CommonName = name
	if by == nil {
		by, byKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), byKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for end, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(folder, name+end), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// Real nginx asks over the network: with a certificate that is listed it serves,
// with another of the same authority everything is denied.
func TestNginxAsksWithACertificate(t *testing.T) {
	folder := t.TempDir()
	ca, caKey := certified(t, folder, "authority", nil, nil)
	for _, name := range []string{"broker.example.com", "gateway.example", "worker.example"} {
		certified(t, folder, name, ca, caKey)
	}
	file := func(name string) string { return filepath.Join(folder, name) }
	w := newWorld(t, brokertest.Configure(func(d *broker.Document) {
		d.Check = broker.Checks{
			Listen: "0.0.0.0:0", Audiences: orders, CertFile: file("broker.example.com.crt"), KeyFile: file("broker.example.com.key"),
			ClientCAFile: file("authority.crt"), Proxies: "gateway.example",
		}
	}))
	w.Tenants("t00", "t01")
	w.Worker("worker-t00", orders, read, "t00")
	token := w.mustToken(w.form("worker-t00", "t00")).AccessToken
	readme, err := os.ReadFile("../deploy/examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```nginx\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) != 2 {
		t.Fatalf("the README has %d blocks for nginx", len(blocks))
	}
	// A name, as it is in the README, that is known everywhere.
	upstream := strings.Replace(blocks[0][1], "broker.example.com:9091", "localhost"+strings.TrimPrefix(w.Internal().CheckAddress().String(), "[::]"), 1)
	for name, good := range map[string]bool{"gateway.example": true, "worker.example": false} {
		url := startGuarding(t, w, pathBound(t).URL, func(s string) string {
			plain := "proxy_pass http://" + w.Internal().CheckAddress().String() + "/v1/check?$check_question;"
			if !strings.Contains(s, plain) {
				t.Fatal("the example asks in another way")
			}
			ask := strings.NewReplacer("/etc/nginx/gateway", file(name), "/etc/nginx/broker-ca.pem", file("authority.crt")).Replace(blocks[1][1])
			return upstream + strings.Replace(s, plain, ask, 1)
		})
		for path, want := range map[string]int{"/t/t00/orders": 200, "/t/t01/orders": 403} {
			if !good {
				want = 500
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if _ = resp.Body.Close(); resp.StatusCode != want {
				t.Errorf("nginx as %s, %s: %d, want %d", name, path, resp.StatusCode, want)
			}
		}
	}
}
