package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

const probeText = `probe reaches for what one tenant of a running service owns, as another tenant and
without a token, and says what came through. FILE describes the service: where it
is, the credentials of two tenants, A and B, how an object comes to be, and what
to try with it (see Description below, and docs/guides/probe.md; probe init writes
one from an OpenAPI document).

It makes an object of each kind as both tenants, with values in it that are
nowhere else, or finds some that are there; makes each attempt as A, so that what
is cached is A's; then as B, as B with headers that name A's tenant, with the ETag
that A was given, and without a token; looks whether A's object is as it was;
makes objects as B that name A's tenant (plant), and looks whether A is shown
them; and removes what it made, also where it is interrupted. Use tenants that are
there for that, on a service that may hold what it makes for a while.

Verdicts, the worst first:

  leak          a value of A's object in an answer to a request that did not
                carry it; a change in A's object; an answer to B that depends on
                whether A has the object; 304 for what only A was given; an
                answer to A that shows what B made in A's name
  suspect       to be looked at, not evidence: an answer that resembles A's, a
                value too short to be evidence, an answer that shared caches
                may keep
  inconclusive  the answers prove nothing: A's own attempt shows nothing either,
                B can't even reach its own object, nobody is shown what B made,
                the service failed, a limit was reached
  clean         none of these

Status, resemblance and time are reported and accuse nobody by themselves.

Exit codes: 0 clean; 8 a leak, with --strict also a suspect; 1 something is
inconclusive; 2 the description or the credentials are wrong; 6 the service can't
be reached. See brokerctl exit-codes --help.

With --watch it goes on until it is stopped, logs each run to stderr as JSON, and
serves tenantbroker_probe_* for Prometheus at /metrics, and /healthz. It exits
with 0 whatever it found: deploy/prometheus/probe.rules.yaml has the alarms. A
token from the environment can't be renewed, and is refused.

Tokens go to base_url and nowhere else, redirects are not followed, and no token
and no value of an answer is shown or written; ids in paths are.

Description, with what may be left out in brackets:

  service: orders
  base_url: https://orders.example.com        (https, or loopback)
  [ca_file: roots.pem] [insecure_http: true]
  tenants:
    a: {tenant: acme, token_file: a.token}    (mode 0600)
    b: {tenant: globex, token_env: B_TOKEN}
    b: {tenant: globex, broker: {issuer: URL, account: ID, key_file: F,
        audience: NAME, [scope: "…"], [ca_file: F]}}
  [limits: {requests: 1000, per_second: 20, duration: 5m, timeout: 10s,
            body: 1048576}]
  [forge: {headers: [X-Tenant, X-Tenant-Id], query: [tenant],
           body: [tenant, tenant_id]}]        (body: of what B makes)
  objects:
    - name: order
      create: {request: POST /orders, body: {note: "{marker}", key: "{witness}"},
               [id: /id]}                     (else Location's last segment)
                                              ({tenant}: whoever makes it)
      find: {request: GET /orders, id: /items/0/id}     (instead of create)
      [reveals: [/email]]                     (what only the owner sees)
      read: GET /orders/{id}                  (or with {tenant}: who asks)
      [delete: "DELETE /orders/{id}"]
      [shared: true]                          (everybody may read it)
      [plant: false]                          (B may make one for A)
      [may_damage: true]                      (attempts may change what was found;
                                               else none that could, unless it
                                               says changes: false)
      try:
        - {name: read, request: "GET /orders/{id}"}
        - {name: search, request: "GET /search?q={marker}", [settle: 5s]}
        - {name: batch, request: POST /batch, body: {ids: ["{id}", "{own}"]}}
        - {name: update, request: "PUT /orders/{id}", body: {note: x}}
        - name: export
          request: POST /exports
          save: {export: /id}
          then:
            - {request: "GET /exports/{export}", until: {/state: done}}
            - {request: "GET /exports/{export}/file"}
          [cleanup: [{request: "DELETE /exports/{export}"}]]
        - name: comment
          request: POST /comments
          body: {order: "{id}", text: "{planted}"}
          save: {comment: /id}
          seen: ["GET /orders/{id}/comments"]
          [cleanup: [{request: "DELETE /comments/{comment}"}]]
        - name: unshared
          before: [{as: a, request: "DELETE /orders/{id}/shares/{tenant_b}"}]
          request: GET /orders/{id}
        - {name: admin, request: "GET /admin/orders/{id}", control: false}

Of an attempt's own requests {id} is A's object, {own} B's; {marker} is a value of
A's object that requests may carry, {witness} one that they may not; {tenant_a}
and {tenant_b}; and what was saved. seen says where A would be shown {planted}, a
word that is new each time: it is a leak where others put it there. control: false is for attempts that nobody,
not even A, should get an answer to; changes: true for a POST that changes the
object. Paths in it are relative to its folder.`

// probeFlags are what the person asked for.
type probeFlags struct {
	dryRun, strict bool
	junit          string
	watch          bool
	interval       time.Duration
	listen         string
}

func probeCommand(a *app) *cobra.Command {
	var f probeFlags
	c := &cobra.Command{
		Use: "probe FILE", Short: "Try to cross from one tenant of a running service to another", Args: cobra.ExactArgs(1),
		Long: probeText,
		Example: `  brokerctl probe orders.yaml --dry-run
  brokerctl probe orders.yaml --junit probe.xml
  brokerctl probe orders.yaml --watch --interval 15m
  B_TOKEN=$(brokerctl token issue --tenant globex --audience orders) brokerctl probe orders.yaml -o json`,
	}
	c.AddCommand(probeInitCommand(a))
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be sent, and send nothing")
	c.Flags().BoolVar(&f.strict, "strict", false, "exit with 8 for what is only suspect too")
	c.Flags().StringVar(&f.junit, "junit", "", "also write the report to this file, as JUnit XML")
	c.Flags().BoolVar(&f.watch, "watch", false, "probe again and again, and serve metrics, until it is stopped")
	c.Flags().DurationVar(&f.interval, "interval", 5*time.Minute, "with --watch: from the end of a run to the next, 10s to 24h")
	c.Flags().StringVar(&f.listen, "listen", "127.0.0.1:9464", "with --watch: where /metrics and /healthz are")
	c.MarkFlagsMutuallyExclusive("watch", "dry-run")
	c.MarkFlagsMutuallyExclusive("watch", "junit")
	c.MarkFlagsMutuallyExclusive("watch", "strict")
	_ = c.MarkFlagFilename("junit") // fails for a flag that doesn't exist
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		d, err := readDescription(args[0])
		if err != nil {
			return err
		}
		if f.dryRun {
			return a.printProbePlan(d)
		}
		if f.watch {
			return a.watchProbe(ctx, d, filepath.Dir(args[0]), f)
		}
		report, err := a.probeOnce(ctx, d, filepath.Dir(args[0]))
		if err != nil {
			return err
		}
		if f.junit != "" {
			if err := writeJUnit(f.junit, report, f.strict); err != nil {
				return err
			}
		}
		if err := a.printProbe(report); err != nil {
			return err
		}
		if err := probeOutcome(report, f.strict); err != nil {
			return err
		}
		a.note("%s", probeCounts(report))
		return nil
	})
	return c
}

func readDescription(path string) (*probe.Description, error) {
	file, err := os.Open(path) //nolint:gosec // the path is the user's own choice
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	data, err := io.ReadAll(io.LimitReader(file, probe.MaxDescription+1))
	if err != nil {
		return nil, err
	}
	d, err := probe.ParseDescription(data)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", path, err)}
	}
	if d.CAFile != "" && !filepath.IsAbs(d.CAFile) {
		d.CAFile = filepath.Join(filepath.Dir(path), d.CAFile)
	}
	return d, nil
}

// probeOnce makes one run, with credentials from where the description says.
func (a *app) probeOnce(ctx context.Context, d *probe.Description, folder string) (*probe.Report, error) {
	tokenA, tokenB, closeAll, err := d.Sources(probe.Environment{Getenv: a.getenv, Folder: folder})
	if err != nil {
		return nil, err
	}
	defer closeAll()
	report, err := probe.Run(ctx, probe.Config{Description: d, TokenA: tokenA, TokenB: tokenB, Now: a.now})
	if errors.Is(err, probe.ErrCredentials) {
		return nil, usageError{err}
	}
	return report, err
}

func (a *app) printProbePlan(d *probe.Description) error {
	plan := d.Plan()
	a.note("%s would be sent to %s, at most %d and %d in a second", several(len(plan), "request"), d.BaseURL, d.Limits.Requests, d.Limits.PerSecond)
	return printList(a, each(plan), columns[probe.Planned]{
		[]string{"OBJECT", "FOR", "AS", "REQUEST"},
		func(p probe.Planned) []string { return []string{p.Object, p.Attempt, p.As, p.Request} },
	})
}

func each[T any](items []T) func(yield func(T, error) bool) {
	return func(yield func(T, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}

var caseColumns = columns[probe.Case]{
	[]string{"VERDICT", "OBJECT", "ATTEMPT", "AS", "STATUS", "A'S", "LIKE", "MS", "NOBODY'S MS", "WHY"},
	func(c probe.Case) []string {
		why := make([]string, 0, len(c.Findings))
		for _, f := range c.Findings {
			why = append(why, f.Text)
		}
		return []string{
			strings.ToUpper(string(c.Verdict)), c.Object, c.Attempt, c.As, number(c.Status), number(c.ReferenceStatus),
			measured(c.Similarity, "%.2f"), measured(c.Milliseconds, "%.1f"), measured(c.NobodysMilliseconds, "%.1f"), strings.Join(why, "; "),
		}
	},
}

func number(n int) string { return measured(float64(n), "%.0f") }

func measured(n float64, format string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(format, n)
}

func (a *app) printProbe(r *probe.Report) error {
	for _, left := range r.Left {
		a.note("not removed: %s", left)
	}
	if a.output != outputTable {
		return a.printData(r)
	}
	if err := printList(a, each(r.Cases), caseColumns); err != nil {
		return err
	}
	a.note("%s", several(r.Requests, "request"))
	return nil
}

func probeCounts(r *probe.Report) string {
	return fmt.Sprintf("%s, %d suspect, %d inconclusive, %d clean",
		several(r.Count(probe.Leak), "leak"), r.Count(probe.Suspect), r.Count(probe.Inconclusive), r.Count(probe.Clean))
}

// probeOutcome makes the exit code of a report. That something is inconclusive is
// no success: it would look like a boundary that holds.
func probeOutcome(r *probe.Report, strict bool) error {
	switch {
	case r.Count(probe.Leak) > 0, strict && r.Count(probe.Suspect) > 0:
		return findingsError{probeCounts(r)}
	case !r.Proves():
		return fmt.Errorf("the boundary is not proven: %s", probeCounts(r))
	}
	return nil
}

func writeJUnit(path string, r *probe.Report, strict bool) error {
	f, err := os.Create(path) //nolint:gosec // the path is the user's own choice
	if err != nil {
		return err
	}
	return errors.Join(r.WriteJUnit(f, strict), f.Close())
}
