package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/tenantbroker/tenantbroker/credential"
)

// actor is who sends a request.
type actor string

// The actors.
const (
	asA    actor = "a"
	asB    actor = "b"
	nobody actor = "" // without a token
)

// ErrUnreachable means: the service gave no answer.
var ErrUnreachable = errors.New("probe: the service can't be reached")

// errNotSent is where the time is over before a request could be sent.
var errNotSent = errors.New("the time is over (limits.duration)")

// errSpent ends what is tried, not the cleaning up.
var errSpent = errors.New("the limit of requests is reached")

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
	cut    bool // longer than the limit, also unpacked, or it does not unpack
	took   time.Duration
	sent   string // the request, without its token
	line   string // method and target
}

func (a *answer) ok() bool { return a != nil && a.status >= 200 && a.status < 300 }

// sender sends requests within the limits.
type sender struct {
	base    *url.URL
	http    *http.Client
	limits  Limits
	limiter *rate.Limiter
	tokens  map[actor]TokenSource
	spoken  []credential.Secret // tokens that were sent, the last ones
	now     func() time.Time
	sent    int
	free    bool // cleaning up: not counted
}

// A service that hands a token back, in whole or in part, has it shown by whoever
// takes it for an id.
const (
	maxSpoken = 16 // tokens that are remembered
	telling   = 16 // bytes of a token that are no coincidence
)

// speaks remembers a token that is sent.
func (s *sender) speaks(token credential.Secret) {
	if slices.ContainsFunc(s.spoken, func(said credential.Secret) bool { return bytes.Equal(said.Reveal(), token.Reveal()) }) {
		return
	}
	if s.spoken = append(s.spoken, token); len(s.spoken) > maxSpoken {
		s.spoken = s.spoken[1:]
	}
}

// ofToken reports whether text holds a token that was sent, or is a part of one.
func (s *sender) ofToken(text string) bool {
	return slices.ContainsFunc(s.spoken, func(said credential.Secret) bool {
		token := string(said.Reveal())
		return strings.Contains(text, token) || len(text) >= telling && strings.Contains(token, text)
	})
}

func newSender(c Config) (*sender, error) {
	base, err := url.Parse(strings.TrimSuffix(c.Description.BaseURL, "/"))
	if err != nil {
		return nil, errors.New("probe: base_url does not parse")
	}
	round := c.Transport
	if round == nil {
		if round, err = transport(c.Description.CAFile); err != nil {
			return nil, err
		}
	}
	l := c.Description.Limits
	return &sender{
		base: base, limits: l, now: c.Now, limiter: rate.NewLimiter(rate.Limit(l.PerSecond), 1),
		tokens: map[actor]TokenSource{asA: c.TokenA, asB: c.TokenB},
		http: &http.Client{
			Transport: round, Timeout: l.Timeout,
			// A token goes nowhere that an answer points to.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// encrypted takes a proxy for https only, which goes through it in a tunnel: of a
// plain request a proxy would see the token.
func encrypted(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme != "https" {
			return nil, nil //nolint:nilnil // as http.Transport wants it: no proxy
		}
		return proxy(r)
	}
}

// transport trusts the system's roots, or those of a PEM file.
func transport(caFile string) (*http.Transport, error) {
	t := &http.Transport{
		Proxy: encrypted(http.ProxyFromEnvironment), ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, IdleConnTimeout: 30 * time.Second,
	}
	if caFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(caFile) //nolint:gosec // the path is the user's own choice
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", caFile)
	}
	t.TLSClientConfig.RootCAs = roots
	return t, nil
}

// send sends one step. extra are headers beyond those of the step, query what is
// appended to its query.
func (s *sender) send(ctx context.Context, who actor, step Step, v values, extra map[string]string, query url.Values) (*answer, error) {
	if !s.free {
		if s.sent >= s.limits.Requests {
			return nil, errSpent
		}
		s.sent++
	}
	if s.limiter.Wait(ctx) != nil {
		return nil, errNotSent
	}
	request, text, err := s.build(ctx, step, v, extra, query)
	if err != nil {
		return nil, err
	}
	if who != nobody {
		token, err := s.tokens[who](ctx)
		if err != nil {
			return nil, fmt.Errorf("probe: token of %s: %w", who, err)
		}
		s.speaks(token)
		request.Header.Set("Authorization", "Bearer "+string(token.Reveal()))
	}
	began := s.now()
	response, err := s.http.Do(request)
	if err != nil {
		return nil, unreachable(ctx, s.line(step, v, query), err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(s.limits.Body)+1))
	if err != nil {
		return nil, unreachable(ctx, s.line(step, v, query), err)
	}
	a := &answer{status: response.StatusCode, header: response.Header, body: body, took: s.now().Sub(began), sent: text}
	a.line = s.line(step, v, query)
	if len(body) > s.limits.Body {
		a.body, a.cut = body[:s.limits.Body], true
	}
	plain, whole := unpack(a.body, s.limits.Body)
	a.body, a.cut = plain, a.cut || !whole
	return a, nil
}

// unreachable leaves out what net/http says of the request: its URL.
func unreachable(ctx context.Context, line string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	line, _, _ = strings.Cut(line, "?")
	return fmt.Errorf("%w: %s: %w", ErrUnreachable, line, err)
}

// line is a request for the report. What was saved from an answer, such as a link
// that opens a file by itself, stays a name.
func (s *sender) line(step Step, v values, query url.Values) string {
	method, target := v.own().target(step.Request)
	return method + " " + s.base.EscapedPath() + with(target, query)
}

// with appends to a target's query.
func with(target string, query url.Values) string {
	if len(query) == 0 {
		return target
	}
	mark := "?"
	if strings.Contains(target, "?") {
		mark = "&"
	}
	return target + mark + query.Encode()
}

func (s *sender) build(ctx context.Context, step Step, v values, extra map[string]string, query url.Values) (*http.Request, string, error) {
	method, target := v.target(step.Request)
	target = with(target, query)
	u, err := url.Parse(s.base.String() + target)
	if err != nil || !sameOrigin(u, s.base) {
		return nil, "", fmt.Errorf("probe: %s: not a path of the service", step.Request)
	}
	var body io.Reader
	var sent strings.Builder
	sent.WriteString(target)
	if unescaped, err := url.QueryUnescape(target); err == nil {
		sent.WriteString("\n" + unescaped)
	}
	if step.Body != nil {
		data, err := json.Marshal(v.body(step.Body))
		if err != nil {
			return nil, "", err
		}
		body = bytes.NewReader(data)
		sent.Write(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, "", err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Accept", "application/json, */*;q=0.5")
	r.Header.Set("User-Agent", "brokerctl-probe")
	for name, value := range step.Headers {
		r.Header.Set(textproto.CanonicalMIMEHeaderKey(name), v.replace(value, plainly))
	}
	for name, value := range extra {
		r.Header.Set(name, value)
	}
	for name, value := range r.Header {
		sent.WriteString("\n" + name + ": " + strings.Join(value, " "))
	}
	return r, sent.String(), nil
}
