package verifier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

const feedPath = "/v1/revocations"

// Times of a follower.
const (
	pollWait     = 25 * time.Second       // asked of the broker; less than proxies give up after
	pollSlack    = 15 * time.Second       // for the answer, on top
	pollSpacing  = 250 * time.Millisecond // between two polls, however much there is to tell
	emptySpacing = time.Second            // after an answer that came too soon and says nothing
	firstPause   = 100 * time.Millisecond
	longestPause = time.Second // doubled up to here, since two seconds is the promise
	keysPause    = 5 * time.Second
	leastKeys    = 250 * time.Millisecond // between two looks at the keys
	pingAfter    = 10 * time.Second       // of silence on a connection
	pingWait     = 5 * time.Second        // for its answer: a poll that dies is noticed before its wait is over
)

// maxReported bounds the key ids that are reported.
const maxReported = 32

var (
	errPoll    = errors.New("following revocations")
	errNoRoom  = fmt.Errorf("%w: no room to wait at the broker", errPoll)
	errRunning = errors.New("verifier: the follower runs already")
)

// Run follows until ctx ends. It returns nil then: a broker that is out of reach
// is no error, see Err and Staleness.
func (f *Follower) Run(ctx context.Context) error {
	f.mu.Lock()
	again := f.running
	f.running = true
	f.mu.Unlock()
	if again {
		return errRunning
	}
	var keys sync.WaitGroup
	changed := make(chan struct{}, 1)
	keys.Go(func() { f.keepKeys(ctx, changed) })
	defer keys.Wait()
	defer f.hangUp()
	pause := time.Duration(0)
	for wait := pollWait; ; {
		if !sleep(ctx, pause) {
			return nil
		}
		asked := f.cfg.Now()
		more, news, err := f.pollOnce(ctx, wait, changed)
		took := f.cfg.Now().Sub(asked)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errNoRoom): // it may be asked all the same, without waiting
			wait, pause = 0, jitter(withoutRoom(wait))
		case err != nil:
			pause = jitter(min(max(2*pause, firstPause), longestPause))
		case more:
			pause = 0
		case news == 0 && took < emptySpacing:
			wait, pause = pollWait, jitter(emptySpacing)
		default:
			wait, pause = pollWait, jitter(pollSpacing)
		}
		f.settle(err, Observation{Err: err, Took: took, News: news, Entries: f.known.count(), Seq: f.known.seq})
	}
}

// withoutRoom is how long to pause after there was no room: not for long where
// it was none to wait in, since every other attempt is in vain then, and what is
// revoked must be known within two seconds.
func withoutRoom(wait time.Duration) time.Duration {
	if wait > 0 {
		return pollSpacing
	}
	return emptySpacing
}

// settle notes how an attempt ended, and logs the first failure and its end.
func (f *Follower) settle(err error, o Observation) {
	f.mu.Lock()
	before := f.failure
	f.failure = err
	f.mu.Unlock()
	switch {
	case err != nil && before == nil:
		f.cfg.Logger.Warn("revocations can't be followed", "error", err)
	case err == nil && before != nil:
		f.cfg.Logger.Info("revocations are followed again")
	}
	if f.cfg.Observe != nil {
		f.cfg.Observe(o)
	}
}

// pollOnce is one poll, which ends early when the verifiers' keys change: then
// the next one says so.
func (f *Follower) pollOnce(ctx context.Context, wait time.Duration, changed <-chan struct{}) (more bool, news int, err error) {
	polling, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	var early bool
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-changed:
			early = true
			cancel()
		case <-done:
		}
	})
	more, news, err = f.poll(polling, wait)
	close(done)
	watch.Wait()
	if early && err != nil && ctx.Err() == nil {
		return true, 0, nil // again, at once
	}
	return more, news, err
}

// ask is poll for who only wants to know whether to go on.
func (f *Follower) ask(ctx context.Context, wait time.Duration) (more bool, err error) {
	more, _, err = f.poll(ctx, wait)
	return more, err
}

// poll asks once and takes the answer in.
func (f *Follower) poll(ctx context.Context, wait time.Duration) (more bool, news int, err error) {
	asked := f.cfg.Now()
	if f.known.begun && !f.fresh(asked) && !f.known.at.IsZero() {
		f.known.restart() // it was away for too long to know what it missed
	}
	ctx, cancel := context.WithTimeout(ctx, wait+pollSlack)
	defer cancel()
	body, err := f.get(ctx, wait)
	if err != nil {
		return false, 0, err
	}
	answer, err := parseFeed(body, f.issuer)
	if err != nil {
		return false, 0, err
	}
	if err := f.known.follows(answer); err != nil {
		return false, 0, err
	}
	if f.known.begun && answer.complete { // it was asked for what is new
		f.cfg.Logger.Warn("the broker knows less of revocations than it has told: its store is another one")
	}
	now := f.cfg.Now()
	more = f.known.learn(answer, asked, f.elapsed(now), now)
	if f.known.dropped {
		f.cfg.Logger.Error("more revocations than are remembered: all tokens issued until now are refused", "limit", f.cfg.MaxEntries)
	}
	return more, answer.news(), nil
}

// get sends the request and reads a bounded answer.
func (f *Follower) get(ctx context.Context, wait time.Duration) ([]byte, error) {
	token, err := f.cfg.Token.Token(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: no token: %w", errPoll, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.issuer.String()+feedPath+"?"+f.query(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPoll, err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	if wait > 0 {
		req.Header.Set("Prefer", "wait="+strconv.Itoa(int(wait/time.Second)))
	}
	res, err := f.cfg.HTTPClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPoll, bare(err))
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxFeed+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errPoll, bare(err))
	case res.StatusCode == http.StatusTooManyRequests:
		return nil, errNoRoom
	case res.StatusCode == http.StatusUnauthorized:
		f.cfg.Token.Refused()
		return nil, fmt.Errorf("%w: the token for it is not accepted", errPoll)
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%w: status %d", errPoll, res.StatusCode)
	case len(body) > maxFeed:
		return nil, fmt.Errorf("%w: over %d bytes", errFeed, maxFeed)
	}
	if media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, fmt.Errorf("%w: not JSON", errFeed)
	}
	return body, nil
}

// query says what is known, and which keys are held.
func (f *Follower) query() string {
	q := url.Values{"verifier": {f.instance}}
	if f.known.begun {
		q.Set("after", strconv.FormatUint(f.known.seq, 10))
	}
	if kids := f.heldByAll(); len(kids) > 0 {
		q.Set("keys", strings.Join(kids, ","))
	}
	return q.Encode()
}

// heldByAll are the ids of the keys that every verifier here holds.
func (f *Follower) heldByAll() (kids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, source := range f.sources {
		set, _ := source.Held()
		if i == 0 {
			kids = reportable(set)
			continue
		}
		kids = slices.DeleteFunc(kids, func(kid string) bool {
			_, held := set.Find(kid)
			return !held
		})
	}
	return kids
}

func reportable(set jwks.Set) (kids []string) {
	for _, k := range set.Keys() {
		if kid := k.ID(); len(kids) < maxReported && plainID(kid) && !slices.Contains(kids, kid) {
			kids = append(kids, kid)
		}
	}
	return kids
}

// plainID reports whether the broker takes a key's id: its own are thumbprints.
func plainID(s string) bool {
	return s != "" && len(s) <= maxFeedID && strings.IndexFunc(s, func(r rune) bool {
		return ('a' > r || r > 'z') && ('A' > r || r > 'Z') && ('0' > r || r > '9') && r != '-' && r != '_'
	}) < 0
}

// keepKeys confirms the verifiers' keys whenever they are due, also without a
// token to verify, and says when they have changed.
func (f *Follower) keepKeys(ctx context.Context, changed chan<- struct{}) {
	for reported := f.heldByAll(); ; {
		wait, failed := f.loadKeys(ctx)
		if now := f.heldByAll(); !slices.Equal(now, reported) {
			reported = now
			select {
			case changed <- struct{}{}:
			default: // it is about to be noticed
			}
		}
		if failed {
			wait = jitter(keysPause)
		}
		if !sleep(ctx, max(wait, leastKeys)) {
			return
		}
	}
}

// loadKeys confirms what is due, and returns when the next is.
func (f *Follower) loadKeys(ctx context.Context) (next time.Duration, failed bool) {
	f.mu.Lock()
	sources := slices.Clone(f.sources)
	f.mu.Unlock()
	next = keysPause // another verifier may come
	for _, source := range sources {
		_, due := source.Held()
		if !f.cfg.Now().Before(due) {
			failed = source.Load(ctx) != nil || failed
			_, due = source.Held()
		}
		next = min(next, due.Sub(f.cfg.Now()))
	}
	return next, failed
}

// pollClient is the client for polls: the token goes nowhere but to the broker.
// hangUp closes its idle connections, if nobody else uses them.
func pollClient(given *http.Client) (client *http.Client, hangUp func()) {
	var own http.Client
	if given != nil {
		own = *given
	}
	hangUp = func() {}
	if t, ok := http.DefaultTransport.(*http.Transport); ok && own.Transport == nil {
		mine := t.Clone()
		// Else a connection that is dead without a word, as a load balancer may
		// leave behind, is tried until TCP gives it up, after a quarter of an hour.
		mine.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait}
		own.Transport, hangUp = mine, mine.CloseIdleConnections
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	own.Jar, own.Timeout = nil, 0
	return &own, hangUp
}

// bare drops the URL that net/http puts in front of its errors.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// sleep waits, or reports that ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jitter is d, give or take: from a half to five quarters of it.
func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Float64()*0.75*float64(d)) //nolint:gosec // spreads load, protects nothing
}
