package keys

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tenantbroker/tenantbroker/credential"
)

// transitKey signs with one version of a Transit key.
type transitKey struct {
	home    *Transit
	at      transitBlob
	alg     credential.Algorithm
	circuit *circuit
	batch   *batcher
	refused atomic.Pointer[error] // Vault refused this key: it is opened anew
}

func newTransitKey(t *Transit, at transitBlob, alg credential.Algorithm) *transitKey {
	k := &transitKey{home: t, at: at, alg: alg, circuit: t.circuit(at.Mount, at.Key)}
	k.batch = &batcher{tasks: t.tasks, batch: t.config.Batch, calls: t.config.Calls, waiting: t.config.Waiting, patience: signPatience, call: k.call}
	return k
}

// Ready implements Remote.
func (k *transitKey) Ready() error {
	if refused := k.refused.Load(); refused != nil {
		return *refused
	}
	return k.circuit.ready()
}

// Doubtful implements Remote.
func (k *transitKey) Doubtful() bool { return k.refused.Load() != nil }

// Sign implements SigningKey.
func (k *transitKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	if err := k.Ready(); err != nil {
		return nil, err
	}
	return k.batch.sign(ctx, input)
}

// call signs a batch, with an outcome for each input.
func (k *transitKey) call(ctx context.Context, inputs [][]byte) []signed {
	out := make([]signed, len(inputs))
	if err := k.Ready(); err != nil { // since they began to wait
		for i := range out {
			out[i].err = err
		}
		return out
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	signatures, err := k.home.config.Engine(k.at.Mount).Sign(bounded, k.at.Key, k.at.Version, k.alg, inputs)
	k.home.stats.add(len(inputs), err)
	if err == nil && len(signatures) != len(inputs) {
		err = fmt.Errorf("%w: %d signatures for %d inputs", ErrMismatch, len(signatures), len(inputs))
	}
	if err != nil {
		err = k.failed(ctx, err)
		for i := range out {
			out[i].err = err
		}
		return out
	}
	for i, s := range signatures {
		if out[i].raw = s.Raw; s.Err != nil {
			out[i] = signed{err: k.failed(ctx, s.Err)}
		}
	}
	return out
}

// failed draws the consequences of a call that failed: if Vault is out of reach
// or lets nobody sign, for all versions of the Transit key, which its paths and
// so policies and quotas are of; if it refused, for this version. Other Transit
// keys go on, whatever the error: a standby's must not stop the active one.
func (k *transitKey) failed(ctx context.Context, err error) error {
	err = transitError(err)
	switch {
	case ctx.Err() != nil: // the home was closed
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	case errors.Is(err, ErrUnavailable):
		k.circuit.trip(err, k.probe)
	default:
		err = fmt.Errorf("%w: it refuses to sign with version %d of %s/%s: %w", ErrUnavailable, k.at.Version, k.at.Mount, k.at.Key, err)
		k.refused.CompareAndSwap(nil, &err)
	}
	return err
}

// probe signs something that is no token.
func (k *transitKey) probe(ctx context.Context) error {
	_, err := k.home.config.Engine(k.at.Mount).Sign(ctx, k.at.Key, k.at.Version, k.alg, [][]byte{[]byte("probe")})
	return transitError(err)
}

// TransitStats are numbers of a Transit home since its start.
type TransitStats struct {
	Signatures uint64 // that were asked of Vault
	Calls      uint64 // in so many calls
	Failed     uint64 // of which so many failed as a whole
	Outages    uint64 // times that Vault was found out of reach, for one Transit key
	Probes     uint64 // calls that found out whether it was back
}

type transitStats struct{ signatures, calls, failed atomic.Uint64 }

func (s *transitStats) add(n int, err error) {
	s.signatures.Add(uint64(n)) //nolint:gosec // never negative
	s.calls.Add(1)
	if err != nil {
		s.failed.Add(1)
	}
}

// Stats returns the numbers.
func (t *Transit) Stats() TransitStats {
	return TransitStats{
		Signatures: t.stats.signatures.Load(), Calls: t.stats.calls.Load(), Failed: t.stats.failed.Load(),
		Outages: t.circuits.trips.Load(), Probes: t.circuits.probes.Load(),
	}
}
