package leases

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

const mailPath = "secret/data/tenants/acme/mail"

// mail is acme's value at kv:mail, as the broker rotates it.
type mail struct {
	*leasing
	manager *secrets.Manager
}

func declareMail(w *leasing, overlap time.Duration) *mail {
	w.Helper()
	m, id := &mail{w, w.Internal().Secrets()}, credential.MustAccountID(billing)
	_, err := m.manager.Create(w.Context(), w.By(), secrets.Secret{
		ID: "mail-key", Kind: "kv", Spec: json.RawMessage(`{"path":"tenants/acme/mail","field":"key"}`),
		Tenant: credential.MustTenant(acme), Owner: id, Consumers: []credential.AccountID{id},
		MaxAge: secrets.Duration(24 * time.Hour), DrainDeadline: secrets.Duration(time.Hour), Overlap: secrets.Duration(overlap),
	})
	w.must(err)
	return m
}

func (m *mail) status() secrets.Status {
	m.Helper()
	s, err := m.manager.Get(m.Context(), m.By(), "mail-key")
	m.must(err)
	return s
}

func (m *mail) rotate(force bool) {
	m.Helper()
	m.must(m.manager.Rotate(m.Context(), m.By(), "mail-key", 0, force))
}

func (m *mail) drains() {
	m.Helper()
	m.eventually("the drain", func() bool { a := m.status().Attempt; return a != nil && a.Step == secrets.Drain })
}

func (m *mail) ends() {
	m.Helper()
	m.eventually("the end of the rotation", func() bool { return m.status().Attempt == nil })
}

// formerLives reports whether Vault has the version before the newest still.
func (m *mail) formerLives() bool {
	m.Helper()
	out, err := m.vault.Do(m.Context(), http.MethodGet, "secret/metadata/tenants/acme/mail", nil)
	m.must(err)
	data, _ := out["data"].(map[string]any)
	current, _ := data["current_version"].(float64)
	versions, _ := data["versions"].(map[string]any)
	version, _ := versions[fmt.Sprint(int(current)-1)].(map[string]any)
	return version != nil && version["destroyed"] == false
}

// A shared secret is rotated under a consumer that leases it: the broker sees
// for itself when the consumer is given the new value, and the old one lives on until
// that has arrived, and for the overlap.
func TestLeases_ARotationSeesItsConsumer(t *testing.T) {
	t.Parallel()
	w := declareMail(newLeasing(t, devvault.Options{Dev: true}), time.Hour)
	handed := make(chan string, 10)
	req := leaseOf(acme, "kv:mail")
	req.TTL = 6 * time.Second
	ctx, stop := context.WithCancel(t.Context())
	kept := make(chan error, 1)
	begin := make(chan struct{})
	go func() {
		<-begin
		kept <- w.Client(billing).Leases().Keep(ctx, client.Keeping{Request: req, Changed: func(_ context.Context, l *client.Lease) error {
			var data struct{ Key string }
			if err := json.Unmarshal(l.Reveal(), &data); err != nil {
				return err
			}
			handed <- data.Key
			return nil
		}})
	}()
	w.rotate(false)
	// Nobody was seen on the new value: the old one is not retired.
	w.drains()
	if s := w.status(); len(s.Uptake) != 1 || s.Uptake[0].Version != 0 {
		t.Errorf("uptake %+v before the consumer asked", s.Uptake)
	}
	close(begin)
	first := <-handed
	if first == "acme-value" || first == "" {
		t.Errorf("it was handed the value of before")
	}
	overlaps := func() {
		t.Helper()
		w.eventually("the overlap", func() bool { return w.status().Waiting.For == secrets.WaitOverlap })
		if s := w.status(); s.Version == 0 || s.Uptake[0].Version != s.Version || s.Uptake[0].How != secrets.Observed {
			t.Errorf("version %d, uptake %+v", s.Version, s.Uptake)
		}
		if !w.formerLives() {
			t.Error("the old value is gone when the consumer has just been given the new one")
		}
		w.rotate(true)
		w.ends()
		if w.formerLives() {
			t.Error("the old value lives when its overlap was cut off by force")
		}
	}
	overlaps()
	// And again, while the consumer is there.
	w.rotate(false)
	if second := <-handed; second == first {
		t.Error("the same value again")
	}
	overlaps()
	stop()
	w.must(<-kept)
}

// held is a Vault of which one answer to a read of the value is held back.
type held struct {
	mu     sync.Mutex
	read   chan struct{} // closed when Vault has answered
	arrive chan struct{} // closed when that may arrive
}

func (h *held) arm() (read, arrive chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.read, h.arrive = make(chan struct{}), make(chan struct{})
	return h.read, h.arrive
}

func (h *held) answer(r *http.Response) error {
	if r.Request.Method != http.MethodGet || r.Request.URL.Path != "/v1/"+mailPath {
		return nil
	}
	h.mu.Lock()
	read, arrive := h.read, h.arrive
	h.read, h.arrive = nil, nil
	h.mu.Unlock()
	if read != nil {
		close(read)
		select {
		case <-arrive:
		case <-r.Request.Context().Done():
		}
	}
	return nil
}

// A lease is asked for, and while Vault's answer is under way the value is rotated:
// the lease is of the new one.
func TestLeases_AValueThatIsRotatedWhileItIsRead(t *testing.T) {
	t.Parallel()
	h := new(held)
	w := declareMail(newLeasing(t, devvault.Options{Dev: true}, brokertest.Configure(func(d *broker.Document) {
		target, err := url.Parse(d.Vault.Address)
		if err != nil {
			t.Fatal(err)
		}
		proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ModifyResponse: h.answer})
		t.Cleanup(proxy.Close)
		d.Vault.Address, d.Vault.Timeout = proxy.URL, time.Minute
	})), secrets.MinOverlap)
	seen := func() {
		t.Helper()
		l := w.obtain(billing, acme, "kv:mail")
		w.must(w.Client(billing).Leases().Release(t.Context(), l))
		w.ends()
	}
	w.rotate(false)
	w.drains()
	seen()
	var err error
	for range 5 { // on a machine that is busy the request ends before the rotation has come so far
		read, arrive := h.arm()
		got := make(chan *client.Lease, 1)
		go func() {
			l, failed := w.Client(billing).Leases().Obtain(t.Context(), leaseOf(acme, "kv:mail"))
			err = failed
			got <- l
		}()
		<-read
		w.rotate(false)
		w.drains()
		close(arrive)
		l := <-got
		if err != nil {
			seen()
			continue
		}
		var data struct {
			Version string `json:"tenantbroker_version"`
		}
		w.must(json.Unmarshal(l.Reveal(), &data))
		if now := w.status().Version; data.Version != fmt.Sprint(now) {
			t.Fatalf("the lease is of version %s, and the value at %d", data.Version, now)
		}
		w.ends()
		return
	}
	t.Fatal(err)
}
