package e2e

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// A key does not sign before the verifiers on the poll hold it: one that
// follows gets it without any traffic, one that lacks it holds the rotation up,
// and one that polls no more doesn't.
func TestRotationWaitsForTheVerifiersOnThePoll(t *testing.T) {
	clock := brokertest.NewClock()
	b := brokertest.Start(t, brokertest.WithClock(clock))
	b.Service(orders)
	source := b.Client(orders).Revocations(credential.System)
	follower, err := verifier.NewFollower(t.Context(), verifier.FollowerConfig{Issuer: b.URL(), Token: source, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	door := new(door)
	v, err := verifier.New(t.Context(), verifier.Config{
		Issuer: b.URL(), Audience: orders, Now: clock.Now, Revocations: follower, HTTPClient: &http.Client{Transport: door},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- follower.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	admin := b.Admin()
	standby := func() (k wire.Key) {
		t.Helper()
		for one, err := range admin.Keys().List(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if one.State == wire.KeyStandby {
				k = one
			}
		}
		return k
	}
	held := func(by, of int) {
		t.Helper()
		for k := standby(); k.Uptake == nil || *k.Uptake != (wire.KeyUptake{Holding: by, Verifiers: of}); k = standby() {
			time.Sleep(50 * time.Millisecond) // asked again; an operator's calls are limited
		}
	}
	rotate := func() error {
		_, err := admin.Keys().Rotate(t.Context(), false, "test")
		return err
	}
	held(1, 1)
	open := door.close() // it fetches the keys by itself, at any moment from now on
	defer open()
	clock.Advance(6 * time.Minute)
	if err := rotate(); err != nil {
		t.Fatalf("the verifier holds the key: %v", err)
	}
	held(0, 1) // the next one is new
	open()
	clock.Advance(6 * time.Minute)
	held(1, 1) // fetched although nothing was verified
	poll := func(query string) {
		t.Helper()
		token, err := source.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.URL()+wire.PathRevocations+"?after=0&verifier=abcdefghijklmnop"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s", resp.Status)
		}
	}
	poll("&keys=another")
	if k := standby(); k.Uptake.Holding != 1 || k.Uptake.Verifiers != 2 {
		t.Errorf("%+v", k.Uptake)
	}
	if err := rotate(); !errors.Is(err, wire.ErrTooEarly) {
		t.Errorf("a verifier lacks it: %v", err)
	}
	clock.Advance(time.Minute)
	held(1, 1)
	if err := rotate(); err != nil {
		t.Errorf("the one without it polls no more: %v", err)
	}
}

// door lets fetches through while it is open.
type door struct{ way sync.RWMutex }

// close waits for who is on his way.
func (d *door) close() (open func()) {
	d.way.Lock()
	return sync.OnceFunc(d.way.Unlock)
}

// RoundTrip implements http.RoundTripper.
func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	d.way.RLock()
	defer d.way.RUnlock()
	return http.DefaultTransport.RoundTrip(r)
}
