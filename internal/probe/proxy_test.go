package probe

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A proxy of the environment is asked for a tunnel, never for a plain request. The
// environment is read once in a process, so this asks another one.
func TestNoProxySeesAToken(t *testing.T) {
	const child = "PROBE_TEST_PROXY_OF"
	if url := os.Getenv(child); url != "" {
		tr, err := transport("")
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		proxy, err := tr.Proxy(r)
		fmt.Printf("proxy=%v err=%v\n", proxy, err)
		return
	}
	for url, want := range map[string]string{
		"http://orders.internal/orders":  "proxy=<nil> err=<nil>",
		"https://orders.internal/orders": "proxy=http://proxy.internal:3128 err=<nil>",
	} {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoProxySeesAToken$")
		c.Env = append(os.Environ(), child+"="+url, "HTTP_PROXY=http://proxy.internal:3128", "HTTPS_PROXY=http://proxy.internal:3128", "NO_PROXY=")
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s", url, err, out)
		}
	}
}
