package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
)

// sendTimeout bounds one exchange of a test with the broker.
const sendTimeout = time.Minute

// message is an HTTP/1 request that is written as it stands: net/http would
// repair it, or refuse to send it.
type message struct {
	w       *badWorld
	method  string
	target  string
	version string
	types   []string   // values of Content-Type, one line each
	lines   []string   // further header lines
	length  string     // value of Content-Length; "": the true one; "none": no such line
	form    url.Values // the body is its encoding
	encode  func(string) string
}

// tokenMessage is a good token request.
func (w *badWorld) tokenMessage() *message {
	w.t.Helper()
	return w.formMessage("/oauth2/token", w.form(mailer, acme))
}

func (w *badWorld) formMessage(path string, form url.Values) *message {
	return &message{
		w: w, method: http.MethodPost, target: path, version: "HTTP/1.1",
		types: []string{"application/x-www-form-urlencoded"}, form: form,
	}
}

// body replaces the encoded form.
func (m *message) body(text string) { m.encode = func(string) string { return text } }

// also appends to the encoded form.
func (m *message) also(text string) { m.encode = func(s string) string { return s + text } }

func (m *message) String() string {
	body := m.form.Encode()
	if m.encode != nil {
		body = m.encode(body)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\nHost: %s\r\n", m.method, m.target, m.version, m.w.host())
	for _, t := range m.types {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", t)
	}
	for _, l := range m.lines {
		b.WriteString(l + "\r\n")
	}
	switch m.length {
	case "none":
	case "":
		b.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	default:
		b.WriteString("Content-Length: " + m.length + "\r\n")
	}
	return b.String() + "\r\n" + body
}

func (w *badWorld) host() string { return strings.TrimPrefix(w.URL(), "http://") }

// send sends a message on a connection of its own and reads the one answer.
func (w *badWorld) send(m *message) answer {
	w.t.Helper()
	a, err := w.trySend(m)
	if err != nil {
		w.t.Fatalf("%s %s: no answer: %v", m.method, m.target, err)
	}
	return a
}

func (w *badWorld) trySend(m *message) (answer, error) {
	w.t.Helper()
	conn := w.dial()
	defer conn.close()
	conn.write(m.String())
	return conn.read(m.method)
}

// wireConn is a raw connection to the broker.
type wireConn struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	done chan struct{} // closed when what was written last is out, or can't be
}

func (w *badWorld) dial() *wireConn { w.t.Helper(); return dialBroker(w.t, w.host()) }

func dialBroker(t *testing.T, host string) *wireConn {
	t.Helper()
	return dialFrom(t, "127.0.0.1", host)
}

// dialFrom dials from another address of this machine.
func dialFrom(t *testing.T, from, host string) *wireConn {
	t.Helper()
	dialer := net.Dialer{Timeout: sendTimeout, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(sendTimeout)); err != nil {
		t.Fatal(err)
	}
	c := &wireConn{t: t, conn: conn, r: bufio.NewReader(conn), done: make(chan struct{})}
	close(c.done)
	return c
}

// write sends text while answers are read: the broker may answer, and close,
// before it has read all.
func (c *wireConn) write(text string) {
	<-c.done
	done := make(chan struct{})
	c.done = done
	go func() {
		defer close(done)
		_, _ = io.WriteString(c.conn, text) // what matters is the answer
	}()
}

// read reads one answer; its body need not be JSON.
func (c *wireConn) read(method string) (answer, error) {
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if resp.Close {
		a.header.Set("Connection", "close")
	}
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		return a, err
	}
	_ = json.Unmarshal(a.body, &a) // what isn't JSON leaves the fields empty
	return a, nil
}

// closed reports whether the broker closes the connection without a further
// answer.
func (c *wireConn) closed() bool {
	_, err := c.r.ReadByte()
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // comes straight from the connection
		return false
	}
	return err != nil
}

func (c *wireConn) close() {
	_ = c.conn.Close()
	<-c.done
}

// badWorld is a world with what some bad requests need in order to be bad in
// one thing only.
type badWorld struct {
	*world
	secret string // of the account mailer, good
	token  string // an access token of the account mailer, in force
}

func newBadWorld(t *testing.T, opts ...brokertest.Option) *badWorld {
	t.Helper()
	w := &badWorld{world: newWorld(t, opts...)}
	w.secret = string(w.ClientSecret(mailer).Reveal())
	w.token = w.mustToken(w.form(mailer, acme)).AccessToken
	w.Account("idle") // has no grant
	w.Account("gone")
	if _, err := w.Registry().DisableAccount(t.Context(), w.By(), credential.MustAccountID("gone"), 0); err != nil {
		t.Fatal(err)
	}
	w.Tenants("sleeping")
	w.Grant(mailer, orders, read, "sleeping")
	if _, err := w.Registry().SuspendTenant(t.Context(), w.By(), credential.MustTenant("sleeping"), 0); err != nil {
		t.Fatal(err)
	}
	return w
}
