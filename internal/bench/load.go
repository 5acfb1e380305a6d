package main

import (
	"bufio"
	"bytes"
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
)

// run is what one load run measured.
type run struct {
	requests  int
	elapsed   time.Duration
	serverCPU time.Duration // user + system time of the server process
	p50, p99  time.Duration
	memory    memory
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
	slices.Sort(latencies)
	return run{
		requests:  len(latencies),
		elapsed:   elapsed,
		serverCPU: cpuAfter - cpuBefore,
		p50:       latencies[len(latencies)/2],
		p99:       latencies[len(latencies)*99/100],
		memory:    resident(pid),
	}, nil
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

// clockTick is the unit of /proc/PID/stat times on Linux: 1/100 s.
const clockTick = 10 * time.Millisecond

// cpuTime returns user plus system time of a whole process.
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command's name may hold spaces: fields count from behind its ")".
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, err
	}
	return time.Duration(user+system) * clockTick, nil
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
