// Package demo plays the broker's main job on real input: two tenants, an
// operator, two workers, a guarded service, and every way across that should
// be closed. It checks each expectation and fails if one does not hold.
package demo

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
)

// limit is how long the whole play may take.
const limit = time.Minute

// Options say how the demo is played.
type Options struct {
	Program string // the name to tell the reader to run
	Vault   bool   // with the keys in a real Vault, and a shared secret rotated there
}

// Run plays the demo, telling it on out. It returns an error if any
// expectation did not hold.
func Run(ctx context.Context, out io.Writer, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	folder, err := os.MkdirTemp("", "tenantbroker-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()

	s := &stage{story: &story{out: out}, folder: folder}
	if err := s.play(ctx, o.Vault); err != nil {
		return err
	}
	if s.broken > 0 {
		return fmt.Errorf("demo: %d of %d expectations did not hold", s.broken, s.held+s.broken)
	}
	_, err = fmt.Fprintf(out, "\nAll %d expectations held.\n\nTo keep a broker running and try it by hand:  %s dev\n", s.held, o.Program)
	return err
}

// stage is everything that the play needs.
type stage struct {
	*story
	folder   string
	config   broker.Config
	made     broker.Initialized
	issuer   credential.IssuerURL
	admin    *client.Admin
	platform *platform
	service  *downstream
	vault    *custody // nil: keys are sealed in the store

	workerKey              *ecdsa.PrivateKey
	acmeToken, globexToken string
}

func (s *stage) play(ctx context.Context, withVault bool) (err error) {
	acts := []func(context.Context) error{s.declare, s.issue, s.cross, s.forge, s.audit}
	if withVault {
		acts = []func(context.Context) error{s.declare, s.issue, s.inVault, s.rotateSecret, s.cross, s.forge, s.audit}
		defer func() {
			if s.vault != nil {
				s.vault.Stop()
			}
		}()
		if err := s.startVault(ctx); err != nil {
			return err
		}
	}
	if s.platform, err = startPlatform(ctx); err != nil {
		return err
	}
	defer s.platform.close()
	stop, err := s.startBroker(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	defer func() {
		if s.service != nil {
			s.service.close()
		}
	}()
	for _, act := range acts {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startBroker makes a data folder and serves it on loopback. The function it
// returns stops the broker and waits for it.
func (s *stage) startBroker(ctx context.Context) (stop func() error, err error) {
	s.chapter("A broker, on the embedded store in a temporary folder")
	listen, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	if s.issuer, err = credential.ParseIssuerURL("http://" + listen); err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	doc := broker.Default()
	doc.Issuer, doc.Listen, doc.Ops.Listen = s.issuer.String(), listen, ""
	doc.Development.AllowLoopbackHTTP = true
	doc.Audit.HeadInterval = time.Second
	if s.vault != nil {
		s.vault.configure(&doc)
		if doc.Leases.TargetsFile, err = s.targetsFile(); err != nil {
			return nil, err
		}
	}
	s.made, err = broker.Init(ctx, broker.InitOptions{
		Folder: filepath.Join(s.folder, "data"), Document: doc, Operator: "olivia", Now: time.Now, Logger: quiet,
	})
	if err != nil {
		return nil, err
	}
	if s.config, err = broker.Load(s.made.Config, broker.NoEnvironment); err != nil {
		return nil, err
	}
	b, err := broker.Open(ctx, s.config, broker.Deps{Now: time.Now, Logger: quiet})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.Run(running) }()
	stop = func() error { cancel(); return <-ended }

	key, err := client.LoadKey(s.made.OperatorKey, s.made.Operator)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	operator, err := client.New(client.Config{Issuer: s.issuer, Auth: key})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	s.admin = operator.Admin(credential.System)
	if err := s.awaitOperator(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	s.say("issuer %s, data in %s (0700), first operator olivia signs in with a key (0600)", s.issuer, s.made.Config)
	return stop, nil
}

// awaitOperator waits until the broker serves the operator.
func (s *stage) awaitOperator(ctx context.Context) (err error) {
	for range 100 {
		if _, err = s.admin.Token(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("demo: the broker does not answer: %w", err)
}

func freeAddress(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
