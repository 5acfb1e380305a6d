package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/tenantbroker/tenantbroker/credential"
)

// ErrUnwrapped is a wrapping token that is used up. If it wasn't this broker,
// the secret id is known to somebody else.
var ErrUnwrapped = errors.New("vault: the wrapping token was used already")

// AppRole logs in with a role id and a secret id.
type AppRole struct {
	Mount        string // default approle
	RoleID       string
	SecretIDFile string // read again at each login
	// Wrapped: the file has a wrapping token instead. It is unwrapped once,
	// the secret id is kept in memory only, and the file is removed, so that a
	// wrapping token that is found used was used by somebody else. A broker
	// that restarts needs a new one.
	Wrapped bool

	unwrapped *unwrapped
}

// unwrapped is the secret id that came out of the file.
type unwrapped struct {
	mu       sync.Mutex
	token    credential.Secret // the wrapping token that it came in
	secretID credential.Secret
	// lost is the wrapping token that we asked to unwrap and got no answer for:
	// that it is used up then says nothing of others.
	lost credential.Secret
}

func (AppRole) method() string { return "approle" }

func (a AppRole) check() error {
	if err := required("a role id", a.RoleID, "a file with the secret id", a.SecretIDFile); err != nil {
		return err
	}
	return checkMount(a.Mount)
}

func (a AppRole) checkFiles() error {
	err := checkSecretFile(a.SecretIDFile)
	if a.Wrapped && errors.Is(err, os.ErrNotExist) {
		return nil // a broker that runs has unwrapped it
	}
	return err
}

// prepare gives it a place for what it unwraps.
func (a AppRole) prepare() Login {
	a.unwrapped = new(unwrapped)
	return a
}

func (a AppRole) signIn(ctx context.Context, k *core) (auth, bool, error) {
	secretID, err := a.secretID(ctx, k)
	if err != nil {
		return auth{}, false, err
	}
	return k.authenticate(ctx, or(a.Mount, "approle"), map[string]any{"role_id": a.RoleID, "secret_id": secretID})
}

func (a AppRole) secretID(ctx context.Context, k *core) (string, error) {
	if !a.Wrapped {
		secretID, err := readSecretFile(a.SecretIDFile)
		if err != nil {
			return "", fmt.Errorf("vault: login: %w", err)
		}
		return secretID, nil
	}
	a.unwrapped.mu.Lock()
	defer a.unwrapped.mu.Unlock()
	fresh, err := readSecretFile(a.SecretIDFile)
	switch {
	case errors.Is(err, os.ErrNotExist) && !a.unwrapped.secretID.IsZero():
		return string(a.unwrapped.secretID.Reveal()), nil // unwrapped before
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("vault: login: %w: put a new wrapped secret id there; the file is removed when it has been unwrapped", err)
	case err != nil:
		return "", fmt.Errorf("vault: login: %w", err)
	}
	token := credential.NewSecret([]byte(fresh))
	if a.unwrapped.token.Equal(token) {
		return string(a.unwrapped.secretID.Reveal()), nil // the file couldn't be removed
	}
	secretID, err := a.unwrap(ctx, k, fresh)
	if err != nil {
		return "", err
	}
	a.unwrapped.token, a.unwrapped.secretID = token, credential.NewSecret([]byte(secretID))
	if err := os.Remove(a.SecretIDFile); err != nil {
		k.logger.Error("the file of a wrapping token that is used up can't be removed: remove it, the next start would take the token for stolen", "error", err)
	}
	return secretID, nil
}

// unwrap trades the wrapping token for the secret id, which works once in the
// life of the token.
func (a AppRole) unwrap(ctx context.Context, k *core, token string) (string, error) {
	if err := a.madeForUs(ctx, k, token); err != nil {
		return "", err
	}
	one := &call{op: opLogin, method: http.MethodPut, path: "sys/wrapping/unwrap", token: token, effect: true}
	out, err := k.direct(ctx, one)
	if errors.Is(err, ErrUncertain) {
		a.unwrapped.lost = credential.NewSecret([]byte(token))
	}
	if err != nil {
		return "", a.stolen(k, token, err)
	}
	var data struct {
		SecretID string `json:"secret_id"`
	}
	if err := out.into(one, &data); err != nil {
		return "", err
	}
	if data.SecretID == "" {
		return "", unexpected(one, "what was wrapped is not a secret id")
	}
	return data.SecretID, nil
}

// madeForUs asks where the wrapping token comes from: whoever swapped it for
// one of his own would have the broker log in as he likes.
func (a AppRole) madeForUs(ctx context.Context, k *core, token string) error {
	one := &call{op: opLogin, method: http.MethodPut, path: "sys/wrapping/lookup", token: token, body: map[string]any{"token": token}}
	out, err := k.direct(ctx, one)
	if err != nil {
		return a.stolen(k, token, err)
	}
	var data struct {
		Path string `json:"creation_path"`
	}
	if err := out.into(one, &data); err != nil {
		return err
	}
	if !strings.HasPrefix(data.Path, "auth/"+or(a.Mount, "approle")+"/role/") || !strings.HasSuffix(data.Path, "/secret-id") {
		k.logger.Error("SECURITY: the wrapping token was not made for a secret id: somebody has put another one in its place", "file", a.SecretIDFile, "path", printable(data.Path))
		return fmt.Errorf("%w: the wrapping token in %s was made by %s, which gives no secret id", ErrUnwrapped, a.SecretIDFile, shownPath(data.Path))
	}
	return nil
}

// stolen says it loudly where Vault doesn't know the wrapping token any more.
func (a AppRole) stolen(k *core, token string, err error) error {
	var failed *Error
	if !errors.As(err, &failed) || (!failed.says("wrapping token is not valid") && !failed.tokenIsDead()) {
		return err
	}
	if a.unwrapped.lost.Equal(credential.NewSecret([]byte(token))) {
		k.logger.Error("the wrapping token of the secret id is used up: this broker asked for it, and Vault's answer was lost: destroy the secret id and put a new wrapped one there", "file", a.SecretIDFile)
		return fmt.Errorf("%w: by this broker, to which Vault's answer was lost: %s: put a new wrapped secret id there: %w", ErrUnwrapped, a.SecretIDFile, err)
	}
	k.logger.Error("SECURITY: the wrapping token of the secret id is used up or has expired, and this broker didn't use it: "+
		"if it has not simply expired, somebody else holds the secret id: destroy it, find out who, and issue a new one",
		"file", a.SecretIDFile)
	return fmt.Errorf("%w, or has expired: %s: somebody else may hold the secret id: destroy it and issue a new one: %w", ErrUnwrapped, a.SecretIDFile, err)
}
