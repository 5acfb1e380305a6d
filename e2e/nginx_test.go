package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/child"
)

// nginx is a real nginx in front of a broker that keeps what the broker lets it
// keep, for as long as it does.
type nginx struct {
	url string
	log string // a line for each answer: from the cache or not
}

const nginxConfig = `
daemon off;
master_process off;
pid %[1]s/nginx.pid;
events { worker_connections 256; }
http {
  log_format cache '$upstream_cache_status';
  access_log %[1]s/access.log cache;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  proxy_cache_path %[1]s/cache keys_zone=keys:1m;
  server {
    listen %[2]s;
    location / {
      proxy_pass %[3]s;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache keys;
      proxy_cache_revalidate on;
      proxy_cache_lock on;
    }
  }
}
`

// startNginx runs an nginx in front of a broker until the test ends.
func startNginx(t *testing.T, broker string) *nginx {
	t.Helper()
	port, err := child.TakePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.Release)
	folder := t.TempDir()
	n := &nginx{url: "http://" + port.Address(), log: filepath.Join(folder, "access.log")}
	config := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, folder, port.Address(), broker), 0o600); err != nil {
		t.Fatal(err)
	}
	runNginx(t, folder, config, n.url+"/.well-known/jwks.json")
	return n
}

// runNginx runs nginx in a folder until the test ends, and returns when a URL of
// it is answered.
func runNginx(t *testing.T, folder, config, url string) {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx" // which is in root's PATH only
	}
	problems := filepath.Join(folder, "error.log")
	process, err := child.Start(exec.Command(program, "-p", folder, "-e", problems, "-c", config), syscall.SIGKILL)
	if err != nil {
		t.Fatalf("%v: script/setup installs nginx", err)
	}
	t.Cleanup(func() { process.Stop(syscall.SIGTERM, 5*time.Second) })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := http.Get(url)
		if err == nil {
			_ = resp.Body.Close()
			return
		}
		select {
		case <-process.Ended():
			said, _ := os.ReadFile(problems)
			t.Fatalf("nginx ended: %v\n%s", process.Err(), said)
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-tick.C:
		}
	}
}

// served counts the answers by where they came from: HIT is the cache, MISS,
// EXPIRED and REVALIDATED the broker.
func (n *nginx) served(t *testing.T) map[string]int {
	t.Helper()
	raw, err := os.ReadFile(n.log)
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for line := range strings.Lines(string(raw)) {
		count[strings.TrimSpace(line)]++
	}
	return count
}
