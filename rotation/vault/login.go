package vault

import (
	"context"
	"fmt"
	"net/http"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Token is a token at hand. For tests and set-up: TokenFile is for the rest.
type Token struct{ Secret credential.Secret }

func (Token) method() string { return "token" }

func (t Token) check() error {
	if t.Secret.IsZero() {
		return required("a token", "")
	}
	return nil
}

func (t Token) signIn(ctx context.Context, k *core) (auth, bool, error) {
	got, err := k.lookupSelf(ctx, string(t.Secret.Reveal()))
	return got, false, err
}

// TokenFile is a token in a file that somebody else keeps fresh: it is read
// again at each login. It is renewed if it can be, and never revoked.
type TokenFile struct{ Path string }

func (TokenFile) method() string { return "token_file" }

func (t TokenFile) check() error { return required("a file with the token", t.Path) }

func (t TokenFile) checkFiles() error { return checkSecretFile(t.Path) }

func (t TokenFile) signIn(ctx context.Context, k *core) (auth, bool, error) {
	token, err := readSecretFile(t.Path)
	if err != nil {
		return auth{}, false, fmt.Errorf("vault: login: %w", err)
	}
	got, err := k.lookupSelf(ctx, token)
	return got, false, err
}

// Login logs in, once. Errors are those of the call, or of the files that the
// login needs. Run does it by itself.
func (c *Client) Login(ctx context.Context) error {
	k := c.core
	k.logins.Lock() // one at a time
	defer k.logins.Unlock()
	got, own, err := k.login.signIn(ctx, k)
	s := k.session
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.finished()
	if err != nil {
		s.fail(err, k.now())
		return err
	}
	s.accept(got, own, k.now())
	s.nudge()
	return nil
}

// direct sends one of the session's own calls: whatever is known of Vault,
// and once.
func (k *core) direct(ctx context.Context, one *call) (reply, error) {
	start := k.now()
	out, err := k.home().send(ctx, one, one.token)
	k.metrics.observe(one.op, err, k.now().Sub(start))
	k.noticed(ctx, err)
	return out, err
}

// authenticate sends a login and returns what it grants.
func (k *core) authenticate(ctx context.Context, mount string, body map[string]any) (auth, bool, error) {
	one := &call{op: opLogin, method: http.MethodPut, path: "auth/" + mount + "/login", body: body}
	out, err := k.direct(ctx, one)
	if err != nil {
		return auth{}, false, err
	}
	if out.Auth == nil || out.Auth.Token == "" {
		return auth{}, false, unexpected(one, "a login without a token")
	}
	return *out.Auth, true, nil
}

// lookupSelf asks Vault what a token is good for.
func (k *core) lookupSelf(ctx context.Context, token string) (auth, error) {
	one := &call{op: opTokenLookup, method: http.MethodGet, path: "auth/token/lookup-self", token: token}
	out, err := k.direct(ctx, one)
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
