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
	req.Body = io.NopCloser(bytes.NewReader(body))
	req.ContentLength = int64(len(body))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	res, data, err := c.do(op, req, maxTokenAnswer)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return c.oauthError(op, res, data)
	}
	if answer == nil {
		return nil
	}
	return decode(op, res, data, answer)
}

// do sends one request and reads a bounded body. Its errors wrap ErrUnavailable
// (no answer) or ErrUnexpected (too large).
func (c *Client) do(op string, req *http.Request, limit int64) (*http.Response, []byte, error) {
	res, err := c.http.Do(req)
	if err != nil {
		return nil, nil, noAnswer(op, err)
	}
	defer res.Body.Close() //nolint:errcheck // nothing was written
	data, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, nil, noAnswer(op, err)
	}
	if int64(len(data)) > limit {
		return nil, nil, &Error{Op: op, Status: res.StatusCode, Detail: fmt.Sprintf("an answer over %d bytes", limit), kind: ErrUnexpected}
	}
	return res, data, nil
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
func (c *Client) oauthError(op string, res *http.Response, data []byte) error {
	e := c.bareError(op, res)
	var body wire.OAuthError
	if isJSON(res) && json.Unmarshal(data, &body) == nil {
		if kind, ok := oauthKinds[body.Code]; ok {
			e.kind = kind
		}
		e.Code = printable(body.Code, maxText)
		e.Detail = printable(body.Description, maxText)
	}
	if e.kind == nil {
		e.kind = kindOfStatus(res.StatusCode)
	}
	return e
}

// problem reads a refusal of an operators' endpoint (RFC 9457).
func (c *Client) problem(op string, res *http.Response, data []byte) error {
	e := c.bareError(op, res)
	e.kind = kindOfStatus(res.StatusCode)
	var p wire.Problem
	if isJSON(res) && json.Unmarshal(data, &p) == nil && p.Code != "" {
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

func (c *Client) bareError(op string, res *http.Response) *Error {
	return &Error{
		Op: op, Status: res.StatusCode,
		RequestID:  printable(res.Header.Get("X-Request-Id"), 128),
		RetryAfter: retryAfter(res.Header, c.now()),
	}
}

func decode(op string, res *http.Response, data []byte, answer any) error {
	if !isJSON(res) {
		return &Error{Op: op, Status: res.StatusCode, Detail: "the answer is not JSON: is this a tenantbroker?", kind: ErrUnexpected}
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return &Error{Op: op, Status: res.StatusCode, Detail: "the answer does not parse", kind: ErrUnexpected}
	}
	return nil
}

func isJSON(res *http.Response) bool {
	mediaType, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	return err == nil && (mediaType == "application/json" || strings.HasSuffix(mediaType, "+json"))
}
