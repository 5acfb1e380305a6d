package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// errOutOfReach: the verifier could not have the key set. That says nothing of
// the token.
var errOutOfReach = errors.New("the key set is out of reach")

// witness is one verifier that sees every token.
type witness struct {
	name   string
	verify func(ctx context.Context, raw string) (tenant string, err error)
}

// witnesses are three verifiers of one broker: this project's, jose in Node, and
// this project's behind a caching nginx, without any cache of its own. They keep
// the key set as long as the broker says that they may.
func witnesses(t *testing.T, issuer string, keep time.Duration) ([]witness, *nginx) {
	t.Helper()
	proxy := startNginx(t, issuer)
	return []witness{
		{"verifier", remoteWitness(t, issuer, issuer, keep)},
		{"jose", nodeWitness(t, issuer, keep)},
		{"behind nginx", remoteWitness(t, issuer, proxy.url, time.Millisecond)},
	}, proxy
}

// remoteWitness verifies with the key set at a URL, which it keeps that long.
// What it may not do in earnest is to ask again after a moment: a second of
// max-age is for tests.
func remoteWitness(t *testing.T, issuer, from string, keep time.Duration) func(context.Context, string) (string, error) {
	t.Helper()
	remote, err := jwks.NewRemote(jwks.RemoteConfig{
		URL: from + "/.well-known/jwks.json", Refresh: keep, MinRefetch: min(keep, 100*time.Millisecond),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remote.Close)
	// Without a cache of tokens, so that each look is one at the keys.
	v, err := verifier.New(t.Context(), verifier.Config{Issuer: issuer, Audience: orders, Keys: remote, CacheSize: -1})
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, raw string) (string, error) {
		token, err := v.Verify(ctx, raw)
		switch {
		case errors.Is(err, verifier.ErrUnavailable):
			return "", fmt.Errorf("%w: %w", errOutOfReach, err)
		case err != nil:
			return "", err
		}
		return token.Tenant().String(), nil
	}
}

// node is a program in Node that answers each line with a line.
type node struct {
	mu      sync.Mutex
	in      io.Writer
	next    int
	waiting map[int]chan nodeVerdict
	ended   error
}

type nodeVerdict struct {
	ID          int    `json:"id"`
	Tenant      string `json:"tenant"`
	Refused     string `json:"refused"`
	Unavailable bool   `json:"unavailable"`
}

func nodeWitness(t *testing.T, issuer string, keep time.Duration) func(context.Context, string) (string, error) {
	t.Helper()
	job, err := json.Marshal(map[string]any{
		"issuer": issuer, "jwks": issuer + "/.well-known/jwks.json", "audience": orders,
		"cacheMaxAge": keep.Milliseconds(), "leeway": int(fastLeeway.Seconds()),
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "--import", withoutWebCrypto, "verify.mjs", string(job))
	cmd.Dir = "clients"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	problems := new(testlog.Buffer)
	cmd.Stderr = problems
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &node{in: in, waiting: make(map[int]chan nodeVerdict)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		n.read(out)
	}()
	t.Cleanup(func() {
		_ = in.Close()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("node verify.mjs: %v\n%s", err, problems.String())
		}
	})
	return n.verify
}

// read hands each verdict to whoever waits for it, until the program ends.
func (n *node) read(out io.Reader) {
	var err error
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var v nodeVerdict
		if err = json.Unmarshal(lines.Bytes(), &v); err != nil {
			break
		}
		n.mu.Lock()
		waiting := n.waiting[v.ID]
		delete(n.waiting, v.ID)
		n.mu.Unlock()
		if waiting != nil {
			waiting <- v
		}
	}
	_, _ = io.Copy(io.Discard, out)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = errors.Join(errors.New("node has ended"), err)
	for _, w := range n.waiting {
		close(w)
	}
	n.waiting = nil
}

func (n *node) verify(ctx context.Context, raw string) (string, error) {
	answer := make(chan nodeVerdict, 1)
	n.mu.Lock()
	if n.ended != nil {
		n.mu.Unlock()
		return "", n.ended
	}
	n.next++
	n.waiting[n.next] = answer
	_, err := fmt.Fprintf(n.in, `{"id":%d,"token":%q}`+"\n", n.next, raw)
	n.mu.Unlock()
	if err != nil {
		return "", err
	}
	select {
	case v, open := <-answer:
		switch {
		case !open:
			return "", errors.New("node has ended")
		case v.Unavailable:
			return "", fmt.Errorf("%w: %s", errOutOfReach, v.Refused)
		case v.Refused != "":
			return "", errors.New(v.Refused)
		}
		return v.Tenant, nil
	case <-ctx.Done():
		return "", fmt.Errorf("%w: %w", errOutOfReach, ctx.Err())
	}
}
