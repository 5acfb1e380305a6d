package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	vaultapi "github.com/hashicorp/vault/api"
)

// maxAnswer bounds the body of an answer.
const maxAnswer = 32 << 20

// maxPath bounds the path of a call.
const maxPath = 1024

// call is one request to Vault.
type call struct {
	op     string // for the metrics: engine and verb, never a name
	method string // GET, PUT, LIST, DELETE
	path   string // without /v1/
	body   map[string]any
	query  map[string][]string
	// effect: the call changes or makes something, so a lost answer leaves
	// open what happened, and it is sent once.
	effect bool
	// token is the one of a call of the session itself.
	token string
}

// sent lists the values in the body that no message may repeat.
func (c *call) sent() []string {
	values := leaves(c.body, nil)
	if c.token != "" {
		values = append(values, c.token)
	}
	return values
}

// reply is an answer, decoded as far as all of them are alike.
type reply struct {
	Data          json.RawMessage `json:"data"`
	LeaseID       string          `json:"lease_id"`
	LeaseDuration int64           `json:"lease_duration"` // seconds
	Renewable     bool            `json:"renewable"`
	Auth          *auth           `json:"auth"`

	status int
	raw    []byte
}

// into decodes the data of an answer.
func (r reply) into(one *call, v any) error {
	if len(r.Data) == 0 || string(r.Data) == "null" {
		return unexpected(one, "no data")
	}
	d := json.NewDecoder(bytes.NewReader(r.Data))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return unexpected(one, "data of another shape")
	}
	return nil
}

// send sends a call once with this token, and says how it went.
func (c *Client) send(ctx context.Context, one *call, token string) (reply, error) {
	if err := checkPath(one.path); err != nil {
		return reply{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.core.timeout)
	defer cancel()
	traced, sent := watchSending(ctx)
	response, err := c.roundTrip(traced, one, token)
	if response == nil {
		return reply{}, transportError(ctx, one, err, sent.Load())
	}
	defer func() { _ = response.Body.Close() }() // read to its end, or given up
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{}, transportError(ctx, one, err, true)
	}
	out := reply{status: response.StatusCode, raw: raw}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		_ = json.Unmarshal(raw, &out) // a 404 may carry data; all else is in the error
		out.status = response.StatusCode
		return out, answerError(one, response.StatusCode, response.Header, raw)
	}
	if len(bytes.TrimSpace(raw)) > 0 {
		if err := json.Unmarshal(raw, &out); err != nil {
			return reply{}, unexpected(one, "not the JSON of an answer")
		}
	}
	return out, nil
}

// roundTrip hands the request to Vault's client: a copy of its own for each
// call, with the namespace and the token of that call.
func (c *Client) roundTrip(ctx context.Context, one *call, token string) (*vaultapi.Response, error) {
	client := c.core.api.WithNamespace(c.namespace)
	client.SetToken(token)
	var (
		response *vaultapi.Response
		err      error
	)
	switch one.method {
	case http.MethodGet, "LIST":
		query := one.query
		if one.method == "LIST" {
			query = map[string][]string{"list": {"true"}}
		}
		response, err = client.Logical().ReadRawWithDataWithContext(ctx, one.path, query)
	case http.MethodPut:
		body, e := json.Marshal(one.body)
		if e != nil {
			return nil, fmt.Errorf("the body is not JSON: %w", e)
		}
		response, err = client.Logical().WriteRawWithContext(ctx, one.path, body)
	case http.MethodDelete:
		response, err = client.Logical().DeleteRawWithContext(ctx, one.path)
	}
	return response, err
}

// checkPath refuses a path that would be read as another one.
func checkPath(path string) error {
	if path == "" || len(path) > maxPath || strings.HasPrefix(path, "/") || strings.Contains(path, "//") {
		return fmt.Errorf("%w: path of 1 to %d characters, without a leading or doubled slash", ErrConfig, maxPath)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return fmt.Errorf("%w: a path with a dot for a name", ErrConfig)
		}
	}
	if strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '?' || r == '#' || r == '%' || r == '\\' }) {
		return fmt.Errorf("%w: a path with a character that is not for paths", ErrConfig)
	}
	return nil
}

// do sends a call with the session's token. A read that broke on the way is
// sent a second time; nothing else is.
func (c *Client) do(ctx context.Context, one *call) (reply, error) {
	start := c.core.now()
	out, err := c.attempt(ctx, one)
	if err != nil && !one.effect && worthRepeating(ctx, err) {
		out, err = c.attempt(ctx, one)
	}
	c.core.metrics.observe(one.op, err, c.core.now().Sub(start))
	if err == nil && out.LeaseID != "" {
		c.core.session.gaveLease()
	}
	return out, err
}

// attempt sends a call once, and again where the token was dead and there is a
// new one: such a call was not carried out.
func (c *Client) attempt(ctx context.Context, one *call) (reply, error) {
	k := c.core
	if err := k.gate(one); err != nil {
		return reply{}, err
	}
	token, generation, err := k.session.token()
	if err != nil {
		return reply{}, &Error{Method: one.method, Path: shownPath(one.path), kinds: []error{ErrLoggedOut, ErrUnavailable}, cause: err}
	}
	out, err := c.send(ctx, one, token)
	k.noticed(ctx, err)
	var failed *Error
	switch {
	case !errors.As(err, &failed) || failed.Status != http.StatusForbidden:
	case !failed.tokenIsDead():
		k.denied()
	case k.replace(ctx, generation):
		if token, _, err := k.session.token(); err == nil {
			out, err = c.send(ctx, one, token)
			k.noticed(ctx, err)
			return out, err
		}
	default:
		failed.kinds = []error{ErrLoggedOut, ErrUnavailable} // not the call was refused, but who asked
	}
	return out, err
}

// worthRepeating: a connection that broke, or a node that lags behind. Not one
// that was refused, nor a timeout: that would only add to the load.
func worthRepeating(ctx context.Context, err error) bool {
	var failed *Error
	if ctx.Err() != nil || !errors.As(err, &failed) {
		return false
	}
	if failed.Status == http.StatusPreconditionFailed {
		return true
	}
	return failed.Status == 0 && failed.cause != nil && (errors.Is(failed.cause, io.EOF) || errors.Is(failed.cause, io.ErrUnexpectedEOF))
}
