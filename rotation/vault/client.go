package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
)

// Client talks to one Vault in one namespace. It is safe for concurrent use.
type Client struct {
	core      *core
	namespace string
}

// core is what the clients of all namespaces share.
type core struct {
	api       *vaultapi.Client // never changed; each call copies it
	transport *http.Transport
	login     Login
	namespace string // where the login happens
	timeout   time.Duration
	probeFor  time.Duration // how long a probe may take
	partFor   time.Duration // how long the farewell may take
	now       func() time.Time
	logger    *slog.Logger
	metrics   *metrics
	session   *session
	logins    sync.Mutex // held by the login in flight
}

// New returns a client that is not logged in. It sends nothing.
func New(c Config) (*Client, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	transport, err := newTransport(c)
	if err != nil {
		return nil, err
	}
	api, err := newAPI(c.Address, transport)
	if err != nil {
		return nil, err
	}
	if l, ok := c.Login.(interface{ prepare() Login }); ok {
		c.Login = l.prepare()
	}
	k := &core{
		api: api, transport: transport, login: c.Login, namespace: c.Namespace, timeout: c.Timeout, probeFor: probeTimeout, partFor: farewellTimeout,
		now: c.Now, logger: c.Logger, session: newSession(),
	}
	if k.metrics, err = newMetrics(c.Registerer, k); err != nil {
		return nil, err
	}
	return &Client{k, c.Namespace}, nil
}

// newAPI returns HashiCorp's client without what it takes from the environment:
// address, token, namespace, headers, wrapping, TLS, retries, rate, proxy.
func newAPI(address string, transport *http.Transport) (*vaultapi.Client, error) {
	api, err := vaultapi.NewClient(&vaultapi.Config{
		Address:          address,
		HttpClient:       &http.Client{Transport: bounded{transport}, CheckRedirect: refuseRedirects},
		MaxRetries:       0, // what may be repeated, we repeat ourselves
		DisableRedirects: true,
		CloneHeaders:     true,
	})
	if err != nil {
		// It reads the environment even where everything is configured.
		return nil, fmt.Errorf("%w: HashiCorp's client stumbles over a variable VAULT_… of the environment, which counts for nothing here: unset it: %w", ErrConfig, err)
	}
	api.ClearToken()
	api.ClearNamespace()
	api.SetHeaders(http.Header{vaultapi.RequestHeaderName: {"true"}})
	api.SetWrappingLookupFunc(func(string, string) string { return "" })
	return api, nil
}

// Namespace returns a client with the same login whose calls go to another
// namespace (Vault Enterprise), named by its whole path.
func (c *Client) Namespace(ns string) *Client { return &Client{c.core, ns} }

// Read reads a path, e.g. "database/creds/orders". Since some reads make
// something, it is sent once, and a lost answer is ErrUncertain.
func (c *Client) Read(ctx context.Context, path string) (*Secret, error) {
	return c.secret(ctx, &call{op: opRead, method: http.MethodGet, path: path, effect: true})
}

// List lists the names under a path; none is no error.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	return c.list(ctx, opList, path)
}

func (c *Client) list(ctx context.Context, op, path string) ([]string, error) {
	one := &call{op: op, method: "LIST", path: path}
	out, err := c.do(ctx, one)
	if errors.Is(err, ErrNotFound) {
		return nil, nil // Vault can't tell an empty folder from none
	}
	if err != nil {
		return nil, err
	}
	var data struct {
		Keys []string `json:"keys"`
	}
	if err := out.into(one, &data); err != nil {
		return nil, err
	}
	return data.Keys, nil
}

// Write writes body to a path. It is sent once: see ErrUncertain. The secret
// is empty where Vault answers without a body.
func (c *Client) Write(ctx context.Context, path string, body map[string]any) (*Secret, error) {
	return c.secret(ctx, &call{op: opWrite, method: http.MethodPut, path: path, body: body, effect: true})
}

// Delete deletes a path. It is sent once: see ErrUncertain.
func (c *Client) Delete(ctx context.Context, path string) error {
	_, err := c.do(ctx, &call{op: opDelete, method: http.MethodDelete, path: path, effect: true})
	return err
}

func (c *Client) secret(ctx context.Context, one *call) (*Secret, error) {
	out, err := c.do(ctx, one)
	if err != nil {
		return nil, err
	}
	return out.secret(one)
}
