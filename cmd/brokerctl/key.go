package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
)

func keyCommand(a *app) *cobra.Command {
	return group("key", "The broker's signing keys",
		`A signing key is standby (published, so that verifiers have it in time), then
active (signing), then retiring (verifying what it signed), then gone.`,
		keyList(a), keyRotate(a), keyRevoke(a))
}

// keyColumns are the columns of the ring as it is at now.
func keyColumns(now time.Time) columns[wire.Key] {
	return columns[wire.Key]{
		[]string{"KEY", "STATE", "ALG", "HOME", "AGE", "IN STATE", "LIVE TOKENS", "UPTAKE", "WAITS FOR", "PROBLEM"},
		func(k wire.Key) []string {
			since := k.PublishedAt
			for _, t := range []time.Time{k.ActivatedAt, k.RetiredAt, k.RevokedAt} {
				if t.After(since) {
					since = t
				}
			}
			return []string{
				k.ID, k.State, string(k.Algorithm), k.Home, age(now, k.PublishedAt), age(now, since), liveTokens(k), uptake(k), waitsFor(now, k.Waits), k.Problem,
			}
		},
	}
}

func liveTokens(k wire.Key) string {
	if k.LiveTokens == nil {
		return "?"
	}
	return strconv.FormatUint(*k.LiveTokens, 10)
}

func uptake(k wire.Key) string {
	if k.Uptake == nil {
		return ""
	}
	return fmt.Sprintf("%d/%d", k.Uptake.Holding, k.Uptake.Verifiers)
}

// waitsFor says in a few words what the next key waits for.
func waitsFor(now time.Time, w *wire.KeyWait) string {
	if w == nil {
		return ""
	}
	switch w.For {
	case wire.WaitSchedule:
		return "its time, in " + age(w.Due, now)
	case wire.WaitNotice:
		return "caches to expire, in " + age(w.Until, now)
	case wire.WaitStandby:
		return "another standby key"
	case wire.WaitUptake:
		text := fmt.Sprintf("%d verifiers without it, at most %s", w.Missing, age(w.Until, now))
		for i, l := range w.Lacking {
			if i == 0 {
				text += ":"
			}
			text += fmt.Sprintf(" %s (%d)", l.Account, l.Verifiers)
		}
		return text
	}
	return w.For
}

// age is how long before to from was, in its two largest units.
func age(to, from time.Time) string {
	if from.IsZero() || to.IsZero() {
		return ""
	}
	d := max(0, to.Sub(from))
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func keyList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the signing keys", Args: cobra.NoArgs,
		Long: `list shows the ring: each key's state, its age and how long it is in that state,
at most how many live tokens it signed, how many of the verifiers that report
hold it (11/12), and what the key that comes next waits for. An operator of
one tenant sees the keys only. -o json has the times.`,
		Example: "  brokerctl key list",
		RunE: a.does(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return printList(a, admin.Keys().List(ctx), keyColumns(a.now()))
			})
		}),
	}
}

func keyRotate(a *app) *cobra.Command {
	var reason string
	var emergency, yes bool
	c := &cobra.Command{
		Use: "rotate --reason WHY", Short: "Put the standby key to work", Args: cobra.NoArgs,
		Long: `rotate makes the standby key the active one; the old key goes on verifying what it
signed. It is refused until verifiers have had time to fetch the standby key.

--emergency does not wait: verifiers that have not fetched it yet refuse tokens
until they do. It needs the role security.`,
		Example: "  brokerctl key rotate --reason \"quarterly\"",
	}
	c.Flags().BoolVar(&emergency, "emergency", false, "don't wait for the verifiers")
	yesFlag(c, &yes)
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		if emergency {
			if err := a.confirm(yes, "Verifiers that don't have the standby key yet will refuse new tokens until they fetch it.", "emergency"); err != nil {
				return err
			}
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			ring, err := admin.Keys().Rotate(ctx, emergency, reason)
			if err != nil {
				return err
			}
			return printList(a, func(yield func(wire.Key, error) bool) {
				for _, k := range ring {
					if !yield(k, nil) {
						return
					}
				}
			}, keyColumns(a.now()))
		})
	})
	return c
}

func keyRevoke(a *app) *cobra.Command {
	var reason string
	var yes bool
	c := &cobra.Command{
		Use: "revoke KEY --reason WHY", Short: "Withdraw a key at once: an emergency", Args: cobra.ExactArgs(1),
		Long: `revoke withdraws a signing key at once. Every token that it signed ends, as soon as
verifiers notice. It shows first how many tokens of which tenants that is, at
most, and asks; with --yes it does not ask, and says what ended. Where that can't
be counted, it says so, and the key can be revoked all the same. If it is the
active key, the standby key takes over.

A key that begins with - goes last, after two dashes.`,
		Example: `  brokerctl key revoke JnKDHXCYk9CKonH4uQefxYnrXilgwaidUpfvhI2d6pc --reason "the key may have leaked, incident 12"
  brokerctl key revoke --yes --reason "incident 12" -- -nKDHXCYk9CKonH4uQefxYnrXilgwaidUpfvhI2d6pc`,
	}
	yesFlag(c, &yes)
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			if !yes {
				impact, err := admin.Keys().Impact(ctx, args[0])
				if err := a.noteImpactBefore(impact, err); err != nil {
					return err
				}
				if err := a.confirm(false, "A revoked key can't be brought back.", args[0]); err != nil {
					return err
				}
			}
			killed, err := admin.Keys().Revoke(ctx, args[0], reason)
			if err != nil {
				return err
			}
			if a.output != outputTable {
				return a.printData(killed)
			}
			if killed.Uncounted {
				a.note("revoked %s; how many tokens that ended could not be counted", args[0])
				return nil
			}
			a.noteImpact("revoked "+args[0]+", which ends", killed)
			return nil
		})
	})
	return c
}

// noteImpactBefore says what a revocation would end. That it can't be counted,
// as where the disk fails, keeps nobody from revoking.
func (a *app) noteImpactBefore(impact *wire.KeyImpact, err error) error {
	switch {
	case err == nil:
		a.noteImpact("This would end", impact)
	case errors.Is(err, client.ErrUnavailable):
		a.note("How many tokens this would end can't be counted now: %v", err)
	default:
		return err
	}
	return nil
}

// noteImpact says how many tokens of whom a revocation ends.
func (a *app) noteImpact(what string, impact *wire.KeyImpact) {
	text := fmt.Sprintf("%s at most %d live tokens of %d tenants", what, impact.Tokens, uint64(len(impact.Tenants))+impact.More)
	if !impact.Last.IsZero() {
		text += ", the last until " + when(impact.Last)
	}
	a.note("%s", text)
	const shown = 20
	for i, t := range impact.Tenants {
		if i == shown {
			a.note("  and others")
			break
		}
		a.note("  %-30s %d", t.Tenant, t.Tokens)
	}
}
