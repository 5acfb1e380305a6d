package issuer

import (
	"context"
	"time"

	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

const (
	flushEvery   = 10 * time.Second // counted refusals become records
	sweepEvery   = time.Minute      // revocations and fan_out rows are forgotten
	sweepPasses  = 20               // transactions of one sweep, at most
	lastFlushFor = 5 * time.Second  // what is counted at the end has this long
)

// Run does the housekeeping until ctx ends: it writes the counted refusals,
// forgets what no longer matters, and at the end writes what is left. It
// returns nil.
func (i *Issuer) Run(ctx context.Context) error {
	flush, sweep := time.NewTicker(flushEvery), time.NewTicker(sweepEvery)
	defer flush.Stop()
	defer sweep.Stop()
	fanOutAt := ""
	for {
		select {
		case <-flush.C:
			if err := i.flush(ctx); err != nil {
				i.log.WarnContext(ctx, "refusals could not be recorded; they are counted on", "error", err)
			}
		case <-sweep.C:
			fanOutAt = i.sweep(ctx, fanOutAt)
		case <-ctx.Done():
			return i.stop(context.WithoutCancel(ctx))
		}
	}
}

func (i *Issuer) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lastFlushFor)
	defer cancel()
	if err := i.flush(ctx); err != nil {
		i.log.ErrorContext(ctx, "the last refusals could not be recorded", "error", err)
	}
	i.sources.Close()
	return nil
}

// sweep forgets a bounded number of entries and returns where the next one
// goes on with the fan_out rows.
func (i *Issuer) sweep(ctx context.Context, fanOutAt string) string {
	for range sweepPasses {
		more, err := revocation.Sweep(ctx, i.store, i.now())
		if err != nil {
			i.log.WarnContext(ctx, "sweeping revocations failed", "error", err)
		}
		if !more || err != nil {
			break
		}
	}
	if _, err := registry.ForgetGrants(ctx, i.store, i.now()); err != nil {
		i.log.WarnContext(ctx, "forgetting the grants of expired tokens failed", "error", err)
	}
	next, err := mint.SweepFanOut(ctx, i.store, i.now(), fanOutAt)
	if err != nil {
		i.log.WarnContext(ctx, "sweeping fan_out rows failed", "error", err)
		return ""
	}
	return next
}
