package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/alarms"
	"github.com/tenantbroker/tenantbroker/internal/probe"
)

const described = `
service: orders
base_url: https://orders.example.com
tenants:
  a: {tenant: acme, token_file: a.token}
  b: {tenant: globex, token_file: b.token}
objects:
  - name: order
    create: {request: POST /orders, body: {note: "{witness}"}, id: /id}
    read: GET /orders/{id}
    try:
      - {name: read, request: "GET /orders/{id}"}
      - {name: list, request: GET /orders}
`

// watched is a watcher whose runs the test lets begin one by one.
type watched struct {
	*testing.T
	url    string
	log    *bytes.Buffer
	runs   chan func(context.Context) (*probe.Report, error)
	pauses chan time.Duration
	cancel context.CancelFunc
	done   chan error
	clock  chan time.Time // holds the time
}

func start(t *testing.T) *watched {
	t.Helper()
	d, err := probe.ParseDescription([]byte(described))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{
		T: t, url: "http://" + l.Addr().String(), log: new(bytes.Buffer), cancel: cancel, done: make(chan error, 1),
		runs: make(chan func(context.Context) (*probe.Report, error)), pauses: make(chan time.Duration), clock: make(chan time.Time, 1),
	}
	w.clock <- time.Unix(1_800_000_000, 0)
	now := func() time.Time {
		is := <-w.clock
		w.clock <- is
		return is
	}
	go func() {
		w.done <- run(ctx, Config{
			Description: d, Interval: time.Minute, Listener: l, Now: now, Logger: slog.New(slog.NewTextHandler(w.log, nil)),
			Probe: func(ctx context.Context) (*probe.Report, error) {
				select {
				case f := <-w.runs:
					return f(ctx)
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			},
		}, func(ctx context.Context, d time.Duration) error {
			select {
			case w.pauses <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(cancel)
	return w
}

// comes makes one run come out as given, and waits until it was counted.
func (w *watched) comes(r *probe.Report, err error) {
	w.Helper()
	w.runs <- func(context.Context) (*probe.Report, error) { return r, err }
	<-w.pauses
}

func (w *watched) passes(d time.Duration) { w.clock <- (<-w.clock).Add(d) }

func (w *watched) get(path string) (int, string) {
	w.Helper()
	response, err := http.Get(w.url + path)
	if err != nil {
		w.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.Fatal(err)
	}
	return response.StatusCode, "\n" + string(text)
}

// shows checks a series by its labels and value.
func (w *watched) shows(series string) {
	w.Helper()
	if _, text := w.get("/metrics"); !strings.Contains(text, "\ntenantbroker_probe_"+series+"\n") {
		w.Errorf("%s is not in %s", series, text)
	}
}

// report has a verdict for read and for list.
func report(read, list probe.Verdict) *probe.Report {
	r := &probe.Report{Verdict: probe.Clean}
	for name, v := range map[string]probe.Verdict{"read": read, "list": list} {
		k := probe.Case{Object: "order", Attempt: name, As: "b", Verdict: v}
		if v != probe.Clean {
			k.Findings = []probe.Finding{{Verdict: v, Kind: "content", Text: "the witness"}}
		}
		r.Cases = append(r.Cases, probe.Case{Object: "order", Attempt: name, As: "no token", Verdict: probe.Clean}, k)
	}
	for _, v := range []probe.Verdict{probe.Inconclusive, probe.Leak} {
		if read == v || list == v {
			r.Verdict = v
		}
	}
	return r
}

// unsure adds to each suspicion that nothing is proven besides.
func unsure(r *probe.Report) *probe.Report {
	for i := range r.Cases {
		if k := &r.Cases[i]; k.Verdict == probe.Suspect {
			k.Findings = append(k.Findings, probe.Finding{Verdict: probe.Inconclusive, Kind: "control", Text: "A itself gets status 404 here"})
		}
	}
	return r
}

func TestALeakStaysUntilTheSameAttemptShowsNone(t *testing.T) {
	w := start(t)
	leaks := func(read, list int) {
		t.Helper()
		w.shows(fmt.Sprintf(`leaks{attempt="read",object="order",service="orders"} %d`, read))
		w.shows(fmt.Sprintf(`leaks{attempt="list",object="order",service="orders"} %d`, list))
	}
	w.comes(report(probe.Clean, probe.Clean), nil)
	leaks(0, 0)
	w.shows(`leaks{attempt="plant",object="order",service="orders"} 0`)
	w.comes(report(probe.Leak, probe.Clean), nil)
	leaks(1, 0)
	for _, k := range []struct {
		name   string
		report *probe.Report
		err    error
	}{
		{"a service that is down", nil, fmt.Errorf("%w: no", probe.ErrUnreachable)},
		{"one that proves nothing", report(probe.Inconclusive, probe.Clean), nil},
		{"a suspicion that proves nothing", unsure(report(probe.Suspect, probe.Clean)), nil},
		{"a run that tried nothing", &probe.Report{Verdict: probe.Inconclusive}, nil},
		{"credentials that are wrong", nil, probe.ErrCredentials},
		{"a leak in another attempt", report(probe.Inconclusive, probe.Leak), nil},
	} {
		w.comes(k.report, k.err)
		if _, text := w.get("/metrics"); !strings.Contains(text, `leaks{attempt="read",object="order",service="orders"} 1`) {
			t.Errorf("silenced by %s", k.name)
		}
	}
	w.comes(report(probe.Clean, probe.Inconclusive), nil)
	leaks(0, 1)
	w.comes(report(probe.Clean, probe.Suspect), nil)
	leaks(0, 0)
	w.stops()
	if text := w.log.String(); !strings.Contains(text, `msg="a leak" service=orders object=order attempt=read as=b kind=content`) {
		t.Errorf("%s", text)
	}
}

func (w *watched) stops() {
	w.Helper()
	w.cancel()
	if err := <-w.done; err != nil {
		w.Error(err)
	}
}

func TestWhatPrometheusIsTold(t *testing.T) {
	w := start(t)
	w.shows(`last_proof_timestamp_seconds{service="orders"} 0`)
	w.shows(`interval_seconds{service="orders"} 60`)
	w.runs <- func(context.Context) (*probe.Report, error) {
		w.passes(3 * time.Second)
		return report(probe.Clean, probe.Clean), nil
	}
	<-w.pauses
	w.shows(`last_run_timestamp_seconds{service="orders"} 1.800000003e+09`)
	w.shows(`last_proof_timestamp_seconds{service="orders"} 1.800000003e+09`)
	w.shows(`last_run_seconds{service="orders"} 3`)
	w.shows(`runs_total{outcome="clean",service="orders"} 1`)
	w.shows(`last_run_outcome{outcome="clean",service="orders"} 1`)
	w.shows(`cases{service="orders",verdict="clean"} 4`)
	w.passes(time.Minute)
	left := report(probe.Inconclusive, probe.Clean)
	left.Left = []string{"order 1 of acme: status 403"}
	w.comes(left, nil)
	w.shows(`left_total{service="orders"} 1`)
	w.shows(`last_run_timestamp_seconds{service="orders"} 1.800000063e+09`)
	w.shows(`last_proof_timestamp_seconds{service="orders"} 1.800000003e+09`)
	w.shows(`last_run_outcome{outcome="clean",service="orders"} 0`)
	w.shows(`last_run_outcome{outcome="inconclusive",service="orders"} 1`)
	w.comes(nil, errors.New("no token"))
	w.comes(nil, probe.ErrUnreachable)
	w.comes(nil, probe.ErrCredentials)
	for _, cause := range causes {
		w.shows(`errors_total{cause="` + cause + `",service="orders"} 1`)
	}
	w.shows(`runs_total{outcome="failed",service="orders"} 3`)
	w.stops()
}

func TestHealth(t *testing.T) {
	w := start(t)
	check := func(want int) {
		t.Helper()
		if status, text := w.get("/healthz"); status != want {
			t.Errorf("%d, want %d: %s", status, want, text)
		}
	}
	check(http.StatusOK)
	w.comes(nil, probe.ErrUnreachable) // the service's health is another thing
	check(http.StatusOK)
	w.passes(66*time.Second + 5*time.Minute + probe.CleanupTime + time.Minute)
	check(http.StatusOK)
	w.passes(time.Second)
	check(http.StatusServiceUnavailable)
	w.comes(report(probe.Clean, probe.Clean), nil)
	check(http.StatusOK)
	w.stops()
}

// Who stops it gets the run under way back first, which is half a run and says
// nothing.
func TestItStopsWhenTheRunHasCleanedUp(t *testing.T) {
	w := start(t)
	cleaned := make(chan struct{})
	began := make(chan struct{})
	w.runs <- func(ctx context.Context) (*probe.Report, error) {
		close(began)
		<-ctx.Done()
		close(cleaned)
		return report(probe.Inconclusive, probe.Inconclusive), nil
	}
	<-began
	w.stops()
	select {
	case <-cleaned:
	default:
		t.Error("it did not wait")
	}
	if strings.Contains(w.log.String(), "probed") {
		t.Error("half a run was counted")
	}
}

func TestItEndsWithItsListener(t *testing.T) {
	d, err := probe.ParseDescription([]byte(described))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	err = Run(t.Context(), Config{Description: d, Interval: time.Minute, Listener: l, Probe: func(ctx context.Context) (*probe.Report, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	if err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestConfig(t *testing.T) {
	d, err := probe.ParseDescription([]byte(described))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing is left to do
	never := func(context.Context) (*probe.Report, error) {
		t.Error("it ran")
		return nil, nil
	}
	for name, c := range map[string]Config{
		"no description": {Probe: never, Interval: time.Minute, Listener: l},
		"no probe":       {Description: d, Interval: time.Minute, Listener: l},
		"no listener":    {Description: d, Probe: never, Interval: time.Minute},
		"too often":      {Description: d, Probe: never, Interval: MinInterval - 1, Listener: l},
		"too seldom":     {Description: d, Probe: never, Interval: MaxInterval + 1, Listener: l},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Run(ctx, c); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestThePauseVaries(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 1000 {
		d := around(time.Minute)
		if d < 54*time.Second || d > 66*time.Second {
			t.Fatalf("%s", d)
		}
		seen[d] = true
	}
	if len(seen) < 900 {
		t.Errorf("%d different ones of 1000", len(seen))
	}
	if err := probe.Pause(t.Context(), time.Millisecond); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := probe.Pause(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// The alarms speak of metrics that are shown, with their labels, and lead to
// pages that exist.
func TestAlarms(t *testing.T) {
	const file = "deploy/prometheus/probe.rules.yaml"
	w := start(t)
	w.comes(report(probe.Leak, probe.Clean), nil)
	_, shown := w.get("/metrics")
	w.stops()
	repository := os.DirFS("../../..")
	n, problems, err := alarms.Problems(repository, file, shown)
	if err != nil || len(problems) > 0 || n != 4 {
		t.Errorf("%d alarms: %v %v", n, problems, err)
	}
	text, err := fs.ReadFile(repository, file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"expr: tenantbroker_probe_leaks > 0\n        labels: {severity: page}",
		"expr: time() - tenantbroker_probe_last_proof_timestamp_seconds > 3 * tenantbroker_probe_interval_seconds\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no alarm has %q", want)
		}
	}
	for _, l := range regexp.MustCompile(`\$labels\.([a-z]+)`).FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(shown, l[1]+`="`) {
			t.Errorf("no label %s", l[1])
		}
	}
}
