package api

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
)

// counted is a body of unknown length that says how much of it was read.
type counted struct {
	io.Reader
	read int
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.read += n
	return n, err
}

// A form whose every parameter is within its own limits, and the whole is not.
func TestABodyIsNotReadBeyondItsLimit(t *testing.T) {
	w, stub := stubWorld(t)
	var form strings.Builder
	form.WriteString("grant_type=client_credentials")
	for i := range 50 {
		fmt.Fprintf(&form, "&p%d=%s", i, strings.Repeat("x", 4000))
	}
	for _, path := range []string{wire.PathToken, wire.PathIntrospect, wire.PathRevoke} {
		body := &counted{Reader: strings.NewReader(form.String())}
		r := httptest.NewRequest(http.MethodPost, path, body)
		r.Header.Set("Content-Type", formType)
		if a := w.serve(r); a.status != 400 || a.json("error") != "invalid_request" || stub.calls != 0 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if body.read > maxBody+4096 {
			t.Errorf("%s: %d bytes were read of a body that may have %d", path, body.read, maxBody)
		}
	}
}
