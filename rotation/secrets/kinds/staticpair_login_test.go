package kinds_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
)

// pooler stands before a PostgreSQL: it speaks TLS if it has a certificate, and
// logs in as another user if it is told so.
type pooler struct {
	server      string
	certificate *tls.Certificate
	users       map[string]string
	port        int
	served      sync.WaitGroup
}

func (p *pooler) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if p.port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	p.served.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.served.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); p.served.Wait() })
}

const sslRequest = 80877103

func (p *pooler) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	code, startup, err := readStartup(client)
	if err == nil && code == sslRequest && p.certificate != nil {
		if _, err = client.Write([]byte("S")); err != nil {
			return
		}
		client = tls.Server(client, &tls.Config{Certificates: []tls.Certificate{*p.certificate}, MinVersion: tls.VersionTLS12})
		_, startup, err = readStartup(client)
	}
	if err != nil {
		return
	}
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	for from, to := range p.users {
		startup = strings.Replace(startup, "user\x00"+from+"\x00", "user\x00"+to+"\x00", 1)
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(startup)+4))
	if _, err := server.Write(append(head, startup...)); err != nil {
		return
	}
	p.served.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_, _ = io.Copy(server, client)
}

func readStartup(r io.Reader) (code uint32, all string, err error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return 0, "", err
	}
	body := make([]byte, max(8, binary.BigEndian.Uint32(size[:])%10_000)-4)
	_, err = io.ReadFull(r, body)
	return binary.BigEndian.Uint32(body), string(body), err
}

// authority returns a certificate for names, and what trusts it.
func authority(t *testing.T, names ...string) (*tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// through has the pair proven somewhere else.
func (w *pairWorld) through(change func(*kinds.Postgres)) {
	w.Helper()
	w.change(func(s *secrets.Secret) {
		spec := w.spec()
		change(&spec.Postgres)
		raw, err := json.Marshal(spec)
		w.must(err)
		s.Spec = raw
	})
}

func (w *pairWorld) server() string {
	return fmt.Sprintf("%s:%d", w.postgres.Host(), w.postgres.Port())
}

// A password goes only to a server whose certificate is the one expected.
func TestAPasswordIsProvenOverTLS(t *testing.T) {
	w := newPair(t)
	certificate, ca := authority(t, "localhost")
	elsewhere, other := authority(t, "elsewhere.example")
	good := &pooler{server: w.server(), certificate: certificate}
	good.start(t)
	wrong := &pooler{server: w.server(), certificate: elsewhere}
	wrong.start(t)
	plain := &pooler{server: w.server()}
	plain.start(t)
	w.run()
	for name, place := range map[string]kinds.Postgres{
		"an authority that isn't trusted": {Host: "localhost", Port: good.port, SSLMode: "verify-full", CA: other},
		"another name":                    {Host: "localhost", Port: wrong.port, SSLMode: "verify-full", CA: other},
		"those of the system":             {Host: "localhost", Port: good.port, SSLMode: "verify-full"},
		"no TLS":                          {Host: "localhost", Port: plain.port, SSLMode: "verify-full", CA: ca},
	} {
		w.through(func(p *kinds.Postgres) { place.Database = p.Database; *p = place })
		w.ask(false)
		st := w.until(name, func(st secrets.Status) bool { return strings.Contains(st.Problem, fmt.Sprint(place.Port)) })
		if name != "no TLS" && !strings.Contains(st.Problem, "is not trusted: see spec.postgres.ca") {
			t.Errorf("%s: %s", name, st.Problem)
		}
		w.must(w.m.Abort(t.Context(), admin, w.name, 0))
	}
	w.through(func(p *kinds.Postgres) {
		*p = kinds.Postgres{Host: "localhost", Port: good.port, SSLMode: "verify-full", CA: ca, Database: p.Database}
	})
	w.rotate(1)
	w.wants("b", 1)
}

// A pooler that logs in as somebody else proves nothing.
func TestALoginAsSomebodyElseIsNoProof(t *testing.T) {
	w := newPair(t)
	pool := &pooler{server: w.server(), users: map[string]string{}}
	pool.start(t)
	w.through(func(p *kinds.Postgres) { p.Port = pool.port })
	password := w.inVault("b").password
	w.sql(fmt.Sprintf("CREATE ROLE %q LOGIN PASSWORD '%s'", w.name+"_x", password.Reveal()))
	pool.users[w.user("b")] = w.name + "_x"
	w.run()
	w.ask(false)
	st := w.until("drift", drifted)
	if !strings.Contains(st.Drift, "the idle user") {
		t.Errorf("%s", st.Drift)
	}
}

// What the environment says of PostgreSQL is for others.
func TestTheEnvironmentDoesNotDecideWhereAPasswordIsProven(t *testing.T) {
	w := newPair(t)
	for name, value := range map[string]string{
		"PGHOST": "192.0.2.1", "PGPORT": "1", "PGDATABASE": "none", "PGUSER": "nobody", "PGPASSWORD": "x", "PGSSLMODE": "verify-full",
		"PGOPTIONS": "-c search_path=none", "PGTARGETSESSIONATTRS": "standby", "PGCONNECT_TIMEOUT": "x", "PGSSLNEGOTIATION": "direct",
	} {
		t.Setenv(name, value)
	}
	w.run()
	w.rotate(1)
	l := w.published()
	if l.user != w.user("b") {
		t.Errorf("published: %s", l.user)
	}
	t.Setenv("PGSERVICE", "x")
	w.ask(false)
	w.until("a problem", func(st secrets.Status) bool { return strings.Contains(st.Problem, "unset it") })
}

// What PostgreSQL says when it can't be asked is no drift, and nobody's fault in Vault.
func TestAPostgresThatIsAwayIsNoDrift(t *testing.T) {
	w := newPair(t)
	w.run()
	w.rotate(1)
	for port, says := range map[int]string{1: "no connection to 127.0.0.1:1 as " + w.user("b")} {
		w.through(func(p *kinds.Postgres) { p.Port = port })
		w.ask(false)
		st := w.until("a problem", func(st secrets.Status) bool { return st.Problem != "" })
		if !strings.Contains(st.Problem, says) || st.Drift != "" {
			t.Errorf("%s: %s", st.Problem, st.Drift)
		}
	}
	w.through(func(p *kinds.Postgres) { p.Database = "none" })
	st := w.until("another problem", func(st secrets.Status) bool { return strings.Contains(st.Problem, "has no database none") })
	if st.Drift != "" {
		t.Errorf("%s", st.Drift)
	}
}
