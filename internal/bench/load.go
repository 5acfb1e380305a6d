package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// run is what one load run measured.
type run struct {
	requests  int
	elapsed   time.Duration
	serverCPU time.Duration // user + system time of the server process
	p50, p99  time.Duration
	memory    memory

	latencies []time.Duration // in order
}

// joined are several runs as one.
func joined(runs []run) (all run) {
	for _, r := range runs {
		all.requests += r.requests
		all.elapsed += r.elapsed
		all.serverCPU += r.serverCPU
		all.memory = r.memory
		all.latencies = append(all.latencies, r.latencies...)
	}
	slices.Sort(all.latencies)
	all.p50, all.p99 = all.latencies[len(all.latencies)/2], all.latencies[len(all.latencies)*99/100]
	return all
}

func (r run) perSecond() float64 { return float64(r.requests) / r.elapsed.Seconds() }

// cpuPerThousand is the server's CPU seconds per 1,000 answers.
func (r run) cpuPerThousand() float64 {
	return r.serverCPU.Seconds() * 1000 / float64(r.requests)
}

// drive posts each body once: see send.
func drive(target string, pid, conns int, bodies [][]byte) (run, error) {
	u, err := url.Parse(target)
	if err != nil {
		return run{}, err
	}
	requests := make([][]byte, len(bodies))
	for i, body := range bodies {
		requests[i] = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
			u.Path, u.Host, len(body), body)
	}
	return send(u.Host, pid, conns, requests)
}

// send sends each request once, over conns keep-alive connections, and measures
// the process pid meanwhile. An answer other than 200 ends the run.
func send(host string, pid, conns int, requests [][]byte) (run, error) {
	var (
		next      atomic.Int64
		wg        sync.WaitGroup
		mu        sync.Mutex
		firstErr  error
		latencies = make([]time.Duration, 0, len(requests))
	)
	cpuBefore, err := cpuTime(pid)
	if err != nil {
		return run{}, err
	}
	start := time.Now()
	for range conns {
		wg.Go(func() {
			mine, err := client(host, &next, requests)
			mu.Lock()
			defer mu.Unlock()
			latencies = append(latencies, mine...)
			if err != nil && firstErr == nil {
				firstErr = err
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if firstErr != nil {
		return run{}, firstErr
	}
	cpuAfter, err := cpuTime(pid)
	if err != nil {
		return run{}, err
	}
	return joined([]run{{
		requests: len(latencies), elapsed: elapsed, serverCPU: cpuAfter - cpuBefore, memory: resident(pid), latencies: latencies,
	}}), nil
}

// client is one connection: plain HTTP/1.1, one request at a time.
func client(host string, next *atomic.Int64, requests [][]byte) ([]time.Duration, error) {
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	reader := bufio.NewReaderSize(conn, 8<<10)
	var latencies []time.Duration
	for {
		i := next.Add(1) - 1
		if i >= int64(len(requests)) {
			return latencies, nil
		}
		sent := time.Now()
		if _, err := conn.Write(requests[i]); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return nil, err
		}
		latencies = append(latencies, time.Since(sent))
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answered %d: %.200s", host, resp.StatusCode, body)
		}
	}
}

// cpuTime returns user plus system time of a whole process, of the threads that
// have ended too, to the nanosecond: a run of a second is 100 of the ticks that
// /proc counts in.
func cpuTime(pid int) (time.Duration, error) {
	// The clock of a process, as clock_getcpuclockid(3) makes its id on Linux.
	const ofScheduler = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|ofScheduler), &t); err != nil { //nolint:gosec // a pid has 22 bits
		return 0, fmt.Errorf("the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// memory is what a process holds, in MiB.
type memory struct {
	all   int64
	files int64 // pages of files in it, such as the store, that the kernel takes back when it wants them
}

func resident(pid int) (m memory) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		switch {
		case err != nil:
		case name == "VmRSS":
			m.all = kb / 1024
		case name == "RssFile":
			m.files = kb / 1024
		}
	}
	return m
}
