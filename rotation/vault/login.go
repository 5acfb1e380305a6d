package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// maxFile bounds a file with a token, a secret id or a JWT.
const maxFile = 64 << 10

// Token is a token at hand. For tests and set-up: TokenFile is for the rest.
type Token struct{ Secret credential.Secret }

func (Token) method() string { return "token" }

func (t Token) check() error {
	if t.Secret.IsZero() {
		return errors.New("no token")
	}
	return nil
}

func (t Token) token() (string, error) { return string(t.Secret.Reveal()), nil }

// TokenFile is a token in a file that somebody else keeps fresh. It is read
// again at each login.
type TokenFile struct{ Path string }

func (TokenFile) method() string { return "token_file" }

func (t TokenFile) check() error { return required("a file", t.Path) }

func (t TokenFile) token() (string, error) { return readSecretFile(t.Path) }

func required(what, value string) error {
	if value == "" {
		return errors.New(what + " is required")
	}
	return nil
}

// readSecretFile returns the one line of a file.
func readSecretFile(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(data))
	switch {
	case len(data) > maxFile:
		return "", fmt.Errorf("%s: over %d bytes", path, maxFile)
	case text == "":
		return "", fmt.Errorf("%s: empty", path)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("%s: more than one word", path)
	}
	return text, nil
}

// Login logs in, once. Errors are those of the call, or of the files that the
// login needs.
func (c *Client) Login(ctx context.Context) error {
	k := c.core
	got, own, err := k.signIn(ctx)
	k.session.mu.Lock()
	defer k.session.mu.Unlock()
	if err != nil {
		k.session.lastError, k.session.lastErrorAt = err, k.now()
		return err
	}
	k.session.accept(got, own, k.now())
	return nil
}

// accept takes a new token. The mutex is held.
func (s *session) accept(got auth, own bool, now time.Time) {
	s.secret, s.generation, s.own = credential.NewSecret([]byte(got.Token)), s.generation+1, own
	s.since, s.lastError, s.unreachableSince = now, nil, time.Time{}
	s.granted(got, now)
}

// granted notes the life of the token. The mutex is held.
func (s *session) granted(got auth, now time.Time) {
	s.ttl, s.renewable, s.expires = time.Duration(got.TTL)*time.Second, got.Renewable, time.Time{}
	if s.ttl > 0 {
		s.expires = now.Add(s.ttl)
	}
}

// signIn gets a token by the configured way. own says that it was made for us.
func (k *core) signIn(ctx context.Context) (got auth, own bool, err error) {
	switch login := k.login.(type) {
	case interface{ token() (string, error) }:
		token, err := login.token()
		if err != nil {
			return auth{}, false, fmt.Errorf("vault: login: %w", err)
		}
		got, err := k.lookupSelf(ctx, token)
		return got, false, err
	}
	return auth{}, false, fmt.Errorf("%w: no such login", ErrConfig)
}

// lookupSelf asks Vault what a token is good for.
func (k *core) lookupSelf(ctx context.Context, token string) (auth, error) {
	one := &call{op: opTokenLookup, method: http.MethodGet, path: "auth/token/lookup-self", token: token}
	out, err := k.home().do(ctx, one)
	if err != nil {
		return auth{}, err
	}
	var data struct {
		TTL       int64 `json:"ttl"`
		Renewable bool  `json:"renewable"`
	}
	if err := out.into(one, &data); err != nil {
		return auth{}, err
	}
	return auth{Token: token, TTL: data.TTL, Renewable: data.Renewable}, nil
}

// home is the client of the namespace where the login happens.
func (k *core) home() *Client { return &Client{k, k.namespace} }
