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

// traefikAround is what the example leaves to its reader: an entry point, and
// where the example is. Nothing else of Traefik's is on.
const traefikAround = `
global: {checkNewVersion: false, sendAnonymousUsage: false}
log: {level: ERROR}
entryPoints: {web: {address: %q}}
providers: {file: {filename: %q, watch: false}}
`

// startTraefik runs a real Traefik with the example's configuration before a
// service, until the test ends, and returns its address.
func startTraefik(t *testing.T, w *world, service string, change func(string) string) string {
	t.Helper()
	program, err := child.Built("traefik", "3.6.12")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("../deploy/examples/traefik.yaml")
	if err != nil {
		t.Fatal(err)
	}
	example := string(raw)
	for old, now := range map[string]string{"//127.0.0.1:9091": "//" + w.Internal().CheckAddress().String(), "http://127.0.0.1:8080": service} {
		if !strings.Contains(example, old) {
			t.Fatalf("the example doesn't name %s", old)
		}
		example = strings.ReplaceAll(example, old, now)
	}
	if change != nil {
		example = change(example)
	}
	port, err := child.TakePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.Release)
	folder := t.TempDir()
	config, dynamic, problems := filepath.Join(folder, "traefik.yaml"), filepath.Join(folder, "example.yaml"), filepath.Join(folder, "problems")
	for file, text := range map[string]string{config: fmt.Sprintf(traefikAround, port.Address(), dynamic), dynamic: example} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	said, err := os.Create(problems)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = said.Close() }()
	cmd := exec.Command(program, "--configFile="+config)
	cmd.Stdout, cmd.Stderr = said, said
	process, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { process.Stop(syscall.SIGTERM, 5*time.Second) })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := http.Get("http://" + port.Address() + "/t/t00/") // 404 until it has read the example
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusUnauthorized {
				return port.Address()
			}
		}
		select {
		case <-process.Ended():
			t.Fatalf("Traefik ended: %v\n%s", process.Err(), child.Tail(problems))
		case <-t.Context().Done():
			t.Fatalf("%v\n%s", t.Context().Err(), child.Tail(problems))
		case <-tick.C:
		}
	}
}

// Real Traefik with the example's configuration: not one crossing. Where the path
// is the client's word, the same requests find crossings, so they would find one here.
func TestCrossTenant_ThroughTraefik(t *testing.T) {
	w, tokens := newCheckWorld(t, 10)
	service := legacy(t)
	t.Run("the example", func(t *testing.T) {
		crossings, passed := mixed(t, "http://"+startTraefik(t, w, service.URL, nil), tokens, 3000)
		if len(crossings) != 0 || passed < 1000 {
			t.Errorf("%d passed, %d crossings: %v", passed, len(crossings), crossings[:min(3, len(crossings))])
		}
	})
	t.Run("without what removes the client's words", func(t *testing.T) {
		const asked = "[client-says, may-read, checked]"
		address := startTraefik(t, w, service.URL, func(s string) string {
			if !strings.Contains(s, asked) {
				t.Fatal("the example asks in another way")
			}
			return strings.Replace(s, asked, "[may-read, checked]", 1)
		})
		if crossings, _ := mixed(t, "http://"+address, tokens, 500); len(crossings) == 0 {
			t.Error("X_Tenant crosses nothing: these requests find nothing")
		}
	})
}

// What a client says of itself in the headers and on the connection.
func TestCrossTenant_BytesThroughTraefik(t *testing.T) {
	w, tokens := newCheckWorld(t, 2)
	w.Worker("reader", orders, read, "t00")
	reader := w.mustToken(w.form("reader", "t00")).AccessToken
	address := startTraefik(t, w, pathBound(t).URL, nil)
	request := func(method, path, token, headers string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: orders\r\nAuthorization: Bearer " + token + "\r\n" + headers + "\r\n"
	}
	const own, others = "/t/t00/orders", "/t/t01/orders"
	words := "X-Original-URI: /t/t01/x\r\nX-Original-URL: /t/t01/x\r\nX-Forwarded-Uri: /t/t01\r\nX-Rewrite-URL: /t/t01\r\nX-Tenant-Id: t01\r\n" +
		"X-Forwarded-Prefix: /t/t01\r\nX-HTTP-Method-Override: DELETE\r\nX-Tenant: t01\r\nX_Tenant: t01\r\nx_tenant: t01\r\n"
	for name, tc := range map[string]struct {
		request string
		want    []int // of each answer, in order
	}{
		"good":                     {request("GET", own, tokens["t00"], ""), []int{200}},
		"another's":                {request("GET", others, tokens["t00"], ""), []int{403}},
		"other words, own path":    {request("GET", own, tokens["t00"], words), []int{200}},
		"other words, others'":     {request("GET", others, tokens["t00"], strings.ReplaceAll(words, "t01", "t00")), []int{403}},
		"two headers":              {request("GET", own, tokens["t00"], "Authorization: Bearer "+tokens["t01"]+"\r\n"), []int{401}},
		"two headers, others'":     {request("GET", others, tokens["t00"], "Authorization: Bearer "+tokens["t01"]+"\r\n"), []int{401}},
		"one header of two tokens": {request("GET", own, tokens["t00"]+", Bearer "+tokens["t01"], ""), []int{401}},
		"X-Tenant taken away":      {request("GET", own, tokens["t00"], "Connection: X-Tenant, close\r\n"), []int{200}},
		"the token taken away":     {request("GET", own, tokens["t00"], "Connection: Authorization\r\n"), []int{401}},
		"the path taken away":      {request("GET", others, tokens["t00"], "Connection: X-Forwarded-Uri\r\nX-Forwarded-Uri: /t/t00/x\r\n"), []int{403}},
		"a read token reads":       {request("GET", own, reader, ""), []int{200}},
		"a read token deletes":     {request("DELETE", own, reader, ""), []int{403}},
		"a read token overrides":   {request("GET", own, reader, "X-HTTP-Method-Override: DELETE\r\n"), []int{200}}, // which the service never sees
		"a method of its own":      {request("PURGE", own, reader, ""), []int{403}},
		"a writer deletes":         {request("DELETE", own, tokens["t00"], ""), []int{200}},
		"tokens swapped on one connection": {request("GET", own, tokens["t00"], "") + request("GET", own, tokens["t01"], "") + request("GET", others, tokens["t01"], "") +
			request("GET", others, tokens["t00"], ""), []int{200, 403, 200, 403}},
	} {
		answers, err := exchange(t.Context(), address, tc.request, len(tc.want))
		var got []int
		for _, a := range answers {
			got = append(got, a.StatusCode)
			if unchecked := a.Header.Values("X-Unchecked"); len(unchecked) > 0 {
				t.Errorf("%s: the service was told what nobody has checked: %q", name, unchecked)
			}
			if uri := a.Header.Get("X-Got"); uri != "" && !strings.HasPrefix(uri, "/t/"+a.Header.Get("X-Told")+"/") {
				t.Errorf("%s: told %q of %s", name, a.Header.Get("X-Told"), uri)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("%s: %v %v, want %v", name, got, err, tc.want)
		}
	}
}
