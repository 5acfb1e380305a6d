package devvault

import (
	"context"
	"net/http"
	"strings"
	"testing"
)

func TestAProxyForwardsAndCounts(t *testing.T) {
	s := ForTest(t, Options{Dev: true})
	p := ProxyForTest(t, s)
	if status := ask(t, s, p, http.MethodGet, "sys/health", ""); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	if p.Calls(nil) != 1 || p.Calls(At("sys/health")) != 1 || p.Calls(At("sys/seal")) != 0 {
		t.Errorf("%d calls", p.Calls(nil))
	}
}

func TestAProxyLosesAnswers(t *testing.T) {
	s := ForTest(t, Options{Dev: true})
	for name, c := range map[string]struct {
		fault   Fault
		status  int // 0: no answer
		written bool
	}{
		"cut before":         {Fault{Cut: true}, 0, false},
		"cut after":          {Fault{Cut: true, Effect: true}, 0, true},
		"500 before":         {Fault{Status: 500}, 500, false},
		"500 after":          {Fault{Status: 500, Effect: true}, 500, true},
		"another path":       {Fault{Status: 500, Match: At("sys/health")}, 200, true},
		"one time that went": {Fault{Status: 500, Times: 1, Match: func(m, _ string) bool { return m == http.MethodDelete }}, 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := ProxyForTest(t, s)
			path := "secret/data/" + strings.ReplaceAll(name, " ", "-")
			repair := p.Break(c.fault)
			if got := ask(t, s, p, http.MethodPut, path, `{"data":{"a":"b"}}`); got != c.status {
				t.Errorf("status %d", got)
			}
			repair()
			_, err := s.Do(t.Context(), http.MethodGet, path, nil)
			if written := err == nil; written != c.written {
				t.Errorf("written: %v", written)
			}
			if got := ask(t, s, p, http.MethodGet, "sys/health", ""); got != http.StatusOK {
				t.Errorf("repaired: status %d", got)
			}
		})
	}
}

// ask sends a request through the proxy as root; 0: no answer came.
func ask(t *testing.T, s *Server, p *Proxy, method, path, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, p.URL()+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", s.RootToken())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}
