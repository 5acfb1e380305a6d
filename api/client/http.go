package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/tenantbroker/tenantbroker/api/wire"
)

// Bounds of answers, in bytes.
const (
	maxTokenAnswer = 64 << 10
	maxAnswer      = 8 << 20
	maxText        = 300 // of the broker's words in an error
)

// postForm makes one authenticated call of an OAuth endpoint. Each call gets a
// proof of identity of its own. A nil answer discards the body.
func (c *Client) postForm(ctx context.Context, op, path string, form url.Values, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.issuer.String()+path, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	err = c.auth.sign(ctx, proof{
		issuer: c.issuer, now: c.now(), form: form, basicAuth: req.SetBasicAuth, token: path == wire.PathToken,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	body := []byte(form.Encode())
	// With GetBody, net/http sends it anew by itself where a connection turns out
	// to be closed before anything of it was written: the proof is still unused.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.Body, _ = req.GetBody() // can't fail
	req.ContentLength = int64(len(body))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	res, err := c.do(op, req, maxTokenAnswer)
	if err != nil {
		return err
	}
	if res.status != http.StatusOK {
		return c.oauthError(op, res)
	}
	if answer == nil {
		return nil
	}
	return decode(op, res, answer)
}

// reply is an answer whose body was read and closed.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// do sends one request and reads a bounded body. Its errors wrap ErrUnavailable
// (no answer) or ErrUnexpected (too large).
func (c *Client) do(op string, req *http.Request, limit int64) (*reply, error) {
	res, err := c.http.Do(req)
	if err != nil {
		return nil, noAnswer(op, err)
	}
	defer res.Body.Close() //nolint:errcheck // nothing was written
	data, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, noAnswer(op, err)
	}
	if int64(len(data)) > limit {
		return nil, &Error{Op: op, Status: res.StatusCode, Detail: fmt.Sprintf("an answer over %d bytes", limit), kind: ErrUnexpected}
	}
	return &reply{res.StatusCode, res.Header, data}, nil
}

// noAnswer drops the URL that net/http puts in front of its errors: Op says it.
func noAnswer(op string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &Error{Op: op, kind: ErrUnavailable, cause: err}
}

// oauthError reads a refusal of an OAuth endpoint (RFC 6749 section 5.2).
func (c *Client) oauthError(op string, res *reply) error {
	e := c.bareError(op, res)
	var body wire.OAuthError
	if isJSON(res) && json.Unmarshal(res.body, &body) == nil {
		if kind, ok := oauthKinds[body.Code]; ok {
			e.kind = kind
		}
		e.Code = printable(body.Code, maxText)
		e.Detail = printable(body.Description, maxText)
	}
	if e.kind == nil {
		e.kind = kindOfStatus(res.status)
	}
	return e
}

// problem reads a refusal of an operators' endpoint (RFC 9457).
func (c *Client) problem(op string, res *reply) error {
	e := c.bareError(op, res)
	e.kind = kindOfStatus(res.status)
	var p wire.Problem
	if isJSON(res) && json.Unmarshal(res.body, &p) == nil && p.Code != "" {
		p.RetryAfter = e.RetryAfter
		e.problem = &p
		e.Code, e.Field = printable(p.Code, maxText), printable(p.Field, maxText)
		e.Detail = printable(p.Detail, maxText)
		if e.Detail == "" && !strings.EqualFold(p.Title, e.kind.Error()) {
			e.Detail = printable(p.Title, maxText)
		}
	}
	return e
}

func (c *Client) bareError(op string, res *reply) *Error {
	return &Error{
		Op: op, Status: res.status,
		RequestID:  printable(res.header.Get("X-Request-Id"), 128),
		RetryAfter: retryAfter(res.header, c.now()),
	}
}

func decode(op string, res *reply, answer any) error {
	if !isJSON(res) {
		return &Error{Op: op, Status: res.status, Detail: "the answer is not JSON: is this a tenantbroker?", kind: ErrUnexpected}
	}
	if err := json.Unmarshal(res.body, answer); err != nil {
		return &Error{Op: op, Status: res.status, Detail: "the answer does not parse", kind: ErrUnexpected}
	}
	return nil
}

func isJSON(res *reply) bool {
	mediaType, _, err := mime.ParseMediaType(res.header.Get("Content-Type"))
	return err == nil && (mediaType == "application/json" || strings.HasSuffix(mediaType, "+json"))
}
