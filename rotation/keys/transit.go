package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// TransitHome is the name of the home that NewTransit returns.
const TransitHome = "vault-transit"

// TransitEngine is Vault's Transit engine at one mount; *vault.Transit is one.
type TransitEngine interface {
	Key(ctx context.Context, name string) (vault.TransitKey, error)
	Create(ctx context.Context, name, typ string) error
	Rotate(ctx context.Context, name string) (version int, err error)
	SetMinimums(ctx context.Context, name string, decryption, encryption int) error
	Sign(ctx context.Context, name string, version int, alg credential.Algorithm, inputs [][]byte) ([]vault.Signature, error)
}

// Defaults and bounds of a TransitConfig.
const (
	DefaultTransitMount  = "transit"
	DefaultTransitPrefix = "tenantbroker"
	DefaultBatch         = 64
	DefaultCalls         = 4
	DefaultWaiting       = 2048
	MaxBatch             = 128
	// callTimeout bounds a call to Vault. A Vault that takes longer counts as one
	// that is down.
	callTimeout = 3 * time.Second
)

// TransitConfig says where in Vault the keys are. Engine is required.
type TransitConfig struct {
	// Engine returns the Transit engine at a mount.
	Engine func(mount string) TransitEngine
	Mount  string // of new keys; default DefaultTransitMount
	// Prefix of the names of Transit keys, one for each algorithm, default
	// DefaultTransitPrefix. No two rings, and no two brokers, may have the same:
	// see Manager.Foreign for what becomes of those that do.
	Prefix string

	Batch   int // signatures in one call at most, 1 to MaxBatch, default DefaultBatch
	Calls   int // calls at a time at most, for each key, default DefaultCalls
	Waiting int // signatures that wait for a call at most, for each key, default DefaultWaiting

	Logger *slog.Logger // default: none
}

// Transit is the home in Vault: Vault makes the keys and signs, and private keys
// never leave it. Each key of a ring is one version of a Transit key. Which
// version is in the row of the key; what Vault calls the latest counts for
// nothing. Concurrent signatures with one key share a call.
//
// It has goroutines while it waits for Vault: Close ends and awaits them.
type Transit struct {
	config   TransitConfig
	tasks    *tasks
	circuits *circuits
	stats    transitStats
	refused  refusals
}

// NewTransit returns the home. Nothing is sent to Vault before it is used. What
// ctx carries goes with each call; its end is of no interest.
func NewTransit(ctx context.Context, c TransitConfig) (*Transit, error) {
	if c.Engine == nil {
		return nil, errors.New("keys: TransitConfig needs Engine")
	}
	for _, f := range []struct {
		to            *int
		preset, limit int
	}{{&c.Batch, DefaultBatch, MaxBatch}, {&c.Calls, DefaultCalls, 64}, {&c.Waiting, DefaultWaiting, 1 << 20}} {
		if *f.to == 0 {
			*f.to = f.preset
		}
		if *f.to < 1 || *f.to > f.limit {
			return nil, fmt.Errorf("keys: TransitConfig: %d is not 1 to %d", *f.to, f.limit)
		}
	}
	if c.Mount == "" {
		c.Mount = DefaultTransitMount
	}
	if c.Prefix == "" {
		c.Prefix = DefaultTransitPrefix
	}
	if err := errors.Join(CheckTransitMount(c.Mount), CheckTransitName(c.Prefix)); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	tasks := newTasks(ctx)
	return &Transit{config: c, tasks: tasks, circuits: newCircuits(tasks, c.Logger)}, nil
}

// Close ends what goes on: signatures that wait fail. It returns when no
// goroutine of the home is left.
func (t *Transit) Close() { t.tasks.close() }

// Name implements Home.
func (t *Transit) Name() string { return TransitHome }

// transitTypes are Vault's names for keys of an algorithm.
var transitTypes = map[credential.Algorithm]string{
	credential.ES256: "ecdsa-p256", credential.EdDSA: "ed25519", credential.RS256: "rsa-2048",
}

func (t *Transit) keyName(alg credential.Algorithm) string {
	return t.config.Prefix + "-" + strings.ToLower(string(alg))
}

// Series implements Series.
func (t *Transit) Series(alg credential.Algorithm) string {
	return TransitHome + ":" + t.config.Mount + "/" + t.keyName(alg)
}

// Newest implements Series.
func (t *Transit) Newest(ctx context.Context, alg credential.Algorithm) (int, error) {
	info, err := t.read(ctx, t.config.Mount, t.keyName(alg))
	if errors.Is(err, vault.ErrNotFound) {
		return 0, nil
	}
	return info.LatestVersion, err
}

// Generate implements Home: it takes the oldest version that was asked for and
// never published, or has Vault make one. It never asks for a second one where
// the first may have been made: that is there when it looks again. A version
// that nobody here asked for is somebody else's, and passed over.
func (t *Transit) Generate(ctx context.Context, alg credential.Algorithm, spent Spent) (Stored, error) {
	typ, ok := transitTypes[alg]
	if !ok {
		return Stored{}, fmt.Errorf("%w: no keys are made for algorithm %q", ErrPolicy, string(alg))
	}
	mount, name := t.config.Mount, t.keyName(alg)
	info, err := t.read(ctx, mount, name)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		if spent.Mark > 0 {
			return Stored{}, rolledBack(mount, name, alg, 0, spent.Mark)
		}
	case err != nil:
		return Stored{}, err
	case info.LatestVersion < spent.Mark:
		return Stored{}, rolledBack(mount, name, alg, info.LatestVersion, spent.Mark)
	default:
		if err := checkTransitKey(mount, info, alg); err != nil {
			return Stored{}, err
		}
		ours := t.refused.below(t.Series(alg), spent.Asked)
		if made, ok := t.oldest(alg, info, spent.Mark, min(info.LatestVersion, ours), spent.IDs); ok {
			return made, nil
		}
	}
	next := info.LatestVersion + 1
	if _, foreign := t.oldest(alg, info, spent.Mark, info.LatestVersion, spent.IDs); foreign {
		return Stored{}, &RecordFirst{Series: t.Series(alg), Asked: next, Foreign: info.LatestVersion}
	}
	if spent.Asked < next {
		return Stored{}, &RecordFirst{Series: t.Series(alg), Asked: next}
	}
	made := next
	err = t.call(ctx, mount, name, func(ctx context.Context) (err error) {
		if next == 1 {
			return t.config.Engine(mount).Create(ctx, name, typ)
		}
		if made, err = t.config.Engine(mount).Rotate(ctx, name); made == 0 {
			made = next
		}
		return err
	})
	if t.refused.note(t.Series(alg), next, err); err != nil {
		return Stored{}, err
	}
	if info, err = t.read(ctx, mount, name); err != nil {
		return Stored{}, err
	}
	if err = checkTransitKey(mount, info, alg); err != nil {
		return Stored{}, err
	}
	key, ok := t.oldest(alg, info, made-1, made, spent.IDs)
	if !ok {
		return Stored{}, fmt.Errorf("%w: %s/%s has no new version after it was rotated", ErrUnavailable, mount, name)
	}
	if made > next { // somebody else was at it too
		key.Foreign = made - 1
	}
	return key, nil
}

// oldest returns the oldest version above one and up to another that is no key
// of the ring.
func (t *Transit) oldest(alg credential.Algorithm, info vault.TransitKey, above, upTo int, ring map[string]bool) (Stored, bool) {
	for n := max(above+1, info.MinEncryptionVersion); n <= upTo; n++ {
		public, err := identified(alg, info.Versions[n].Public)
		if err != nil || ring[public.ID()] {
			continue
		}
		return Stored{
			Home: TransitHome, Public: public, Series: t.Series(alg), Number: n,
			Blob: encode(transitBlob{Form: transitForm, Mount: t.config.Mount, Key: t.keyName(alg), Version: n}),
		}, true
	}
	return Stored{}, false
}

// Open implements Home. It holds the version in Vault against the public key
// that was published.
func (t *Transit) Open(ctx context.Context, key Stored) (SigningKey, error) {
	if key.Home != TransitHome {
		return nil, fmt.Errorf("%w: %q", ErrHome, key.Home)
	}
	at, err := parseTransitBlob(key.Blob)
	if err != nil {
		return nil, err
	}
	info, err := t.read(ctx, at.Mount, at.Key)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, fmt.Errorf("%w: there is no Transit key %s/%s", ErrLost, at.Mount, at.Key)
	}
	if err != nil {
		return nil, err
	}
	if err := checkTransitKey(at.Mount, info, key.Public.Algorithm()); err != nil {
		return nil, err
	}
	if err := at.check(info, key.Public); err != nil {
		return nil, err
	}
	return newTransitKey(t, at, key.Public.Algorithm()), nil
}

// Find implements Series.
func (t *Transit) Find(ctx context.Context, public jwks.Key) (Stored, error) {
	mount, name := t.config.Mount, t.keyName(public.Algorithm())
	info, err := t.read(ctx, mount, name)
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return Stored{}, err
	}
	for n, version := range info.Versions {
		if found, err := identified(public.Algorithm(), version.Public); err == nil && found.Equal(public) {
			return Stored{Home: TransitHome, Public: public, Blob: encode(transitBlob{transitForm, mount, name, n})}, nil
		}
	}
	return Stored{}, fmt.Errorf("%w: no version of %s/%s is %s", ErrLost, mount, name, public.ID())
}

// read reads a Transit key, within the bounds of call.
func (t *Transit) read(ctx context.Context, mount, name string) (info vault.TransitKey, err error) {
	err = t.call(ctx, mount, name, func(ctx context.Context) (err error) {
		info, err = t.config.Engine(mount).Key(ctx, name)
		return err
	})
	return info, err
}

// circuit returns what keeps callers off a Transit key.
func (t *Transit) circuit(mount, name string) *circuit { return t.circuits.of(mount + "/" + name) }

// call makes one call to Vault about a Transit key, unless it is known to be out
// of reach. A failure to reach it is known from then on, until looking at the key
// succeeds. That a policy forbids the call says nothing of signing, which goes on.
func (t *Transit) call(ctx context.Context, mount, name string, do func(context.Context) error) error {
	c := t.circuit(mount, name)
	if err := c.err(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := transitError(do(bounded))
	if errors.Is(err, ErrUnavailable) && !errors.Is(err, vault.ErrForbidden) && ctx.Err() == nil {
		c.trip(err, func(ctx context.Context) error {
			_, err := t.config.Engine(mount).Key(ctx, name)
			if errors.Is(err, vault.ErrForbidden) {
				return nil // it answers
			}
			return transitError(err)
		})
	}
	return err
}

// transitError tells what Vault refuses from a Vault that is down, or lets
// nobody in. The error is Vault's own, without any value that was sent.
func transitError(err error) error {
	for _, away := range []error{vault.ErrUnavailable, vault.ErrForbidden, vault.ErrAnswer, context.DeadlineExceeded} {
		if errors.Is(err, away) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return err
}
