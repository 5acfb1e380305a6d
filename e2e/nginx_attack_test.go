package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What a client can do to the headers and the connection: the token that is
// judged is the one of the request that passes.
func TestCrossTenant_BytesThroughNginx(t *testing.T) {
	w, tokens := newCheckWorld(t, 2)
	address := strings.TrimPrefix(startGuarding(t, w, pathBound(t).URL, nil), "http://")
	request := func(path, version, headers string) string {
		return "GET " + path + " HTTP/" + version + "\r\nHost: orders\r\n" + headers + "\r\n"
	}
	bearer := func(tenant string) string { return "Authorization: Bearer " + tokens[tenant] + "\r\n" }
	const own, others = "/t/t00/orders", "/t/t01/orders"
	for name, tc := range map[string]struct {
		request string
		want    []int // of each answer, in order
	}{
		"good":                     {request(own, "1.1", bearer("t00")), []int{200}},
		"HTTP/1.0":                 {request(own, "1.0", bearer("t00")), []int{200}},
		"HTTP/1.0, another's":      {request(others, "1.0", bearer("t00")), []int{403}},
		"another's":                {request(others, "1.1", bearer("t00")), []int{403}},
		"two headers":              {request(others, "1.1", bearer("t01")+bearer("t00")), []int{400}},
		"two headers, own":         {request(own, "1.1", bearer("t01")+bearer("t00")), []int{400}},
		"one header of two tokens": {request(own, "1.1", "Authorization: Bearer "+tokens["t00"]+", Bearer "+tokens["t01"]+"\r\n"), []int{401}},
		"a comma behind":           {request(own, "1.1", "Authorization: Bearer "+tokens["t00"]+",\r\n"), []int{401}},
		"a space behind":           {request(own, "1.1", "Authorization: Bearer "+tokens["t00"]+" \r\n"), []int{200}},
		"spaces between":           {request(own, "1.1", "Authorization: Bearer    "+tokens["t00"]+"\r\n"), []int{200}},
		"a question behind":        {request(others, "1.1", "Authorization: Bearer "+tokens["t00"]+" audience=orders&tenant=t00&scope=orders:read\r\n"), []int{401}},
		"the key of another entry": {request(own, "1.1", bearer("t00")) + request(others, "1.1", "Authorization: Bearer "+tokens["t00"]+" audience=orders&tenant=t00\r\n"), []int{200, 401}},
		"folded":                   {request(own, "1.1", "Authorization: Bearer\r\n "+tokens["t00"]+"\r\n"), []int{400}},
		"a header without a value": {request(own, "1.1", "Authorization:\r\n"), []int{401}},
		"a space before the colon": {request(own, "1.1", "Authorization : Bearer "+tokens["t00"]+"\r\n"), []int{400}},
		"NUL in a header":          {request(own, "1.1", bearer("t00")+"X-Original-URI: /t/t01\x00/x\r\n"), []int{400}},
		"other words for the path": {request(others, "1.1", bearer("t00")+"X-Original-URI: /t/t00/orders\r\nX-Original-URL: /t/t00/../t00\r\nX-Forwarded-Uri: /t%2ft00\r\nX-Rewrite-URL: /t/t00\r\n"), []int{403}},
		"other words, own path": {request(own, "1.1", bearer("t00")+"X-Original-URI: /t/t01/x\r\nX-Original-URL: /t/t01/x\r\nX-Forwarded-Uri: /t/t01\r\nX-Rewrite-URL: /t/t01\r\nX-Tenant-Id: t01\r\n"+
			"X-Forwarded-Prefix: /t/t01\r\nX-HTTP-Method-Override: DELETE\r\n"), []int{200}},
		"large headers": {request(own, "1.1", bearer("t00")+"X: "+strings.Repeat("a", 9000)+"\r\n"), []int{400}},
		"a large token": {request(own, "1.1", "Authorization: Bearer "+strings.Repeat("a", 8100)+"\r\n"), []int{401}},
		"many headers":  {request(own, "1.1", bearer("t00")+strings.Repeat("X-Tenant: t01\r\n", 400)), []int{200}},
		"pipelined": {request(own, "1.1", bearer("t00")) + request(others, "1.1", bearer("t00")) + request(others, "1.1", bearer("t01")) +
			request(own, "1.1", bearer("t01")) + request(own, "1.1", "") + request(own, "1.1", bearer("t00")), []int{200, 403, 200, 403, 401, 200}},
		"a body that is the next request": {"POST " + own + " HTTP/1.1\r\nHost: orders\r\n" + bearer("t00") + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(request(others, "1.1", ""))) +
			request(others, "1.1", "") + request(others, "1.1", bearer("t00")), []int{200, 403}},
		"a length beside chunks": {"POST " + own + " HTTP/1.1\r\nHost: orders\r\n" + bearer("t00") + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" +
			request(others, "1.1", bearer("t01")), []int{400}},
		"chunks, then a request": {"POST " + own + " HTTP/1.1\r\nHost: orders\r\n" + bearer("t00") + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n" +
			request(others, "1.1", bearer("t00")), []int{200, 403}},
		"an upgrade": {request(own, "1.1", bearer("t00")+"Upgrade: websocket\r\nConnection: Upgrade, X-Tenant, Authorization\r\n"), []int{200}},
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
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v %v, want %v", name, got, err, tc.want)
		}
	}
	// HEAD's answer has no body to read.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+address+others, nil)
	if err != nil {
		t.Fatal(err)
	}
	for tenant, want := range map[string]int{"t00": 403, "t01": 200} {
		r.Header.Set("Authorization", "Bearer "+tokens[tenant])
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("HEAD as %s: %d", tenant, resp.StatusCode)
		}
	}
}

// Only what passes is kept. What is denied, malformed or could not be answered
// is asked again each time, whatever an answer in between says of itself.
func TestNginxKeepsOnlyWhatPasses(t *testing.T) {
	w, tokens := newCheckWorld(t, 1)
	target, err := url.Parse("http://" + w.Internal().CheckAddress().String())
	if err != nil {
		t.Fatal(err)
	}
	var asked, failing atomic.Int64
	through := httputil.NewSingleHostReverseProxy(target)
	counting := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if status := int(failing.Load()); status != 0 { // with headers that would have it kept
			rw.Header().Set("Cache-Control", "private, max-age=5")
			rw.Header().Set("Expires", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			rw.WriteHeader(status)
			return
		}
		through.ServeHTTP(rw, r)
	}))
	defer counting.Close()
	nginx := startGuarding(t, w, pathBound(t).URL, func(s string) string {
		return strings.ReplaceAll(s, target.Host, strings.TrimPrefix(counting.URL, "http://"))
	})
	type threeRequests struct {
		name    string
		path    string
		header  string
		failing int
		want    int
		asked   int64 // by all three
	}
	n := 0
	ask := func(tc threeRequests) (problem string) {
		before := asked.Load()
		failing.Store(int64(tc.failing))
		for range 3 {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/t/%s/%d", nginx, tc.path, n), nil)
			if err != nil {
				t.Fatal(err)
			}
			if tc.header != "" {
				r.Header.Set("Authorization", tc.header)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if _ = resp.Body.Close(); resp.StatusCode != tc.want {
				problem = fmt.Sprintf("%s: %d, want %d", tc.name, resp.StatusCode, tc.want)
			}
			n++
		}
		if got := asked.Load() - before; got != tc.asked {
			problem = fmt.Sprintf("%s: the broker was asked %d times, want %d", tc.name, got, tc.asked)
		}
		return problem
	}
	token := tokens["t00"]
	for _, tc := range []threeRequests{
		{"no token", "t00", "", 0, 401, 3},
		{"a token that is none", "t00", "Bearer x", 0, 401, 3},
		{"another tenant", "t01", "Bearer " + token, 0, 403, 3},
		{"out of reach", "t00", "Bearer " + token, 503, 500, 3},
		{"a defect", "t00", "Bearer " + token, 500, 500, 3},
		{"malformed", "t00", "Bearer " + token, 400, 500, 3},
		{"denied, and said to last", "t00", "Bearer " + token, 403, 403, 3},
		{"unauthenticated, and said to last", "t00", "Bearer " + token, 401, 401, 3},
	} {
		if problem := ask(tc); problem != "" {
			t.Error(problem)
		}
	}
	// It is kept for five seconds, which a pause of the machine may take.
	for {
		begun := time.Now()
		problem := ask(threeRequests{"good", "t00", "Bearer " + token, 0, 200, 1})
		if problem == "" {
			problem = ask(threeRequests{"kept, while the broker is away", "t00", "Bearer " + token, 503, 200, 0})
		}
		if problem == "" {
			break
		}
		if time.Since(begun) < 4*time.Second {
			t.Fatal(problem)
		}
		t.Log(problem)
		time.Sleep(7 * time.Second) // it is kept no more
	}
	for _, tc := range []threeRequests{
		{"kept, and nobody else's", "t00", "bearer " + token, 503, 500, 3},
		{"kept, and for nothing else", "t01", "Bearer " + token, 0, 403, 3},
	} {
		if problem := ask(tc); problem != "" {
			t.Error(problem)
		}
	}
}

// A configuration that sends the path in a header, and keeps answers by token and
// query as the example does, keeps none: they are for one path.
func TestCrossTenant_APathInAHeaderThroughNginx(t *testing.T) {
	w, tokens := newCheckWorld(t, 5)
	nginx := startGuarding(t, w, legacy(t).URL, func(s string) string {
		const asked, sent = `"audience=orders&tenant=$path_tenant&scope=$check_scope"`, `proxy_set_header Content-Length "";`
		if !strings.Contains(s, asked) || !strings.Contains(s, sent) {
			t.Fatal("the example asks in another way")
		}
		s = strings.Replace(s, asked, `"audience=orders&tenant_at=/t/{tenant}&scope=orders:read"`, 1)
		return strings.Replace(s, sent, sent+"\n    proxy_set_header X-Forwarded-Uri $request_uri;", 1)
	})
	crossings, passed := mixed(t, nginx, tokens, 500)
	if len(crossings) != 0 || passed < 100 {
		t.Errorf("%d passed, %d crossings: %v", passed, len(crossings), crossings[:min(3, len(crossings))])
	}
}

// What a token may read it may not change.
func TestNginxAsksForTheScopeOfTheMethod(t *testing.T) {
	w, _ := newCheckWorld(t, 1)
	w.Worker("reader", orders, read, "t00")
	reader := w.mustToken(w.form("reader", "t00")).AccessToken
	address := startGuarding(t, w, pathBound(t).URL, nil)
	for method, want := range map[string]int{http.MethodGet: 200, http.MethodHead: 200, http.MethodDelete: 403, http.MethodPost: 403, http.MethodPut: 403, "PURGE": 403} {
		r, err := http.NewRequestWithContext(t.Context(), method, address+"/t/t00/orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+reader)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", method, resp.StatusCode, want)
		}
	}
}
