package broker

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A webhook's call carries a token for one URL. It follows no redirect, so that
// the token goes nowhere else and an answer is the webhook's own.
func TestWebhook_FollowsNoRedirect(t *testing.T) {
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
		mux := http.NewServeMux()
		s := httptest.NewServer(mux)
		t.Cleanup(s.Close)
		calls := 0
		mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { calls++ })
		mux.HandleFunc("/hook", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", status) })
		config := Config{}
		config.doc.Development.AllowLoopbackHTTP = true
		client, err := (&Broker{config: config}).outbound(nil, "")
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/hook", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != status || calls != 0 {
			t.Errorf("%d, followed %d times", answer.StatusCode, calls)
		}
	}
}
