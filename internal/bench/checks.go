package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/tenantbroker/tenantbroker/internal/broker"
)

const checkPath = "/v1/check"

// seenBefore is how many tokens the checks of tokens seen before are about: a
// verifier remembers more.
const seenBefore = 1000

// checks prints what /v1/check costs for a token at first sight, beside a bare
// handler that does one verification, and for tokens seen before, beside one
// that does nothing; with the line that each check leaves in the log, and
// without. Revocation, tenant and accounts are looked up each time.
func (b *bench) checks(ctx context.Context) error {
	fmt.Printf("\n### /v1/check, medians of %d rounds\n\n", b.rounds)
	fmt.Println("| token | conns | CPU s per 1,000 | floor | ratio | p50 ms | p99 ms | floor p99 | ratio | per second | RSS MiB |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|")
	for _, level := range []string{"warn", "info"} {
		if err := b.checksLogging(ctx, level); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) checksLogging(ctx context.Context, level string) (err error) {
	w, address, err := b.checkWorld(ctx, level)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(filepath.Dir(w.config), "log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	p, err := startLogging(ctx, b.binary, w, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	said := map[string]string{"warn": "", "info": ", logged"}[level]
	for _, conns := range []int{1, 16, 64} {
		var first, floor, again, bare []run
		for range b.rounds {
			n := b.requests
			if conns == 1 {
				n /= 4
			}
			asked, err := w.questions(ctx, p, n+seenBefore)
			if err != nil {
				return err
			}
			if _, err := send(address, p.pid, conns, asked.seen(checkPath, seenBefore)); err != nil {
				return err
			}
			floorHost := hostOf(b.floor.url)
			got, err := inTurns(conns, []load{
				{floorHost, b.floor.pid, asked.fresh("/verify")}, {address, p.pid, asked.fresh(checkPath)},
				{floorHost, b.floor.pid, asked.seen("/nothing", n)}, {address, p.pid, asked.seen(checkPath, n)},
			})
			if err != nil {
				return err
			}
			floor, first, bare, again = append(floor, got[0]), append(first, got[1]), append(bare, got[2]), append(again, got[3])
		}
		row("at first sight"+said, false, conns, first, floor)
		row("seen before"+said, false, conns, again, bare)
	}
	return nil
}

// load is what one server is sent.
type load struct {
	host     string
	pid      int
	requests [][]byte
}

// turnLength is how many requests are sent before it is another's turn: a
// moment's load of the machine hits all alike, and few connections are opened.
const turnLength = 2000

// inTurns sends loads of the same length, in turns.
func inTurns(conns int, loads []load) ([]run, error) {
	parts := make([][]run, len(loads))
	for from := 0; from < len(loads[0].requests); from += turnLength {
		for i, l := range loads {
			r, err := send(l.host, l.pid, conns, l.requests[from:min(from+turnLength, len(l.requests))])
			if err != nil {
				return nil, err
			}
			parts[i] = append(parts[i], r)
		}
	}
	all := make([]run, len(loads))
	for i := range parts {
		all[i] = joined(parts[i])
	}
	return all, nil
}

// checkWorld is a world of 1,000 tenants that proxies may ask.
func (b *bench) checkWorld(ctx context.Context, level string) (*world, string, error) {
	folder := filepath.Join(b.folder, "check-"+level)
	if err := os.RemoveAll(folder); err != nil {
		return nil, "", err
	}
	listen, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	w, err := seed(ctx, folder, listen, 1000, func(d *broker.Document) {
		d.Check.Listen, d.Check.Audiences, d.Log.Level = address, audience.String(), level
	})
	return w, address, err
}

// questions are what a proxy asks about so many tokens, each for its tenant.
type questions struct {
	heads  []string // what follows the path in each request
	asking []string // the tenant of each
}

// questions has the broker issue n tokens.
func (w *world) questions(ctx context.Context, p *process, n int) (*questions, error) {
	bodies, err := w.vouched(n)
	if err != nil {
		return nil, err
	}
	q := &questions{heads: make([]string, n), asking: make([]string, n)}
	for i, drawn := range draw(n, w.n) { // as vouched draws
		q.asking[i] = tenantOf(drawn).String()
	}
	var (
		all    sync.WaitGroup
		next   atomic.Int64
		failed atomic.Pointer[error]
		client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	)
	defer client.CloseIdleConnections()
	for range 16 {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && failed.Load() == nil; i = next.Add(1) - 1 {
				token, err := issued(ctx, client, p.url+"/oauth2/token", bodies[i])
				if err != nil {
					failed.Store(&err)
					return
				}
				q.heads[i] = "?audience=orders&scope=orders:read&tenant=" + q.asking[i] +
					" HTTP/1.1\r\nHost: broker\r\nAuthorization: Bearer " + token + "\r\n\r\n"
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return q, nil
}

func issued(ctx context.Context, c *http.Client, url string, body []byte) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", err
	}
	if answer.AccessToken == "" {
		return "", fmt.Errorf("no token: status %d", resp.StatusCode)
	}
	return answer.AccessToken, nil
}

// fresh are questions about a token each, at another path for the floor, which
// reads the same.
func (q *questions) fresh(path string) [][]byte {
	all := make([][]byte, len(q.heads)-seenBefore)
	for i := range all {
		all[i] = []byte("GET " + path + q.heads[i])
	}
	return all
}

// seen are n questions about the other tokens, over and over.
func (q *questions) seen(path string, n int) [][]byte {
	others := q.heads[len(q.heads)-seenBefore:]
	all := make([][]byte, n)
	for i := range all {
		all[i] = []byte("GET " + path + others[i%len(others)])
	}
	return all
}

func hostOf(url string) string { return url[len("http://"):] }
