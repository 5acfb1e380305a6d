package pgrotation

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A connection that is being made with the former login holds the
// acknowledgement up: its password would end under it.
func TestAnAttemptInFlightHoldsTheAcknowledgementUp(t *testing.T) {
	p := &Pool{now: Login{"a", "x", 1}, connecting: map[uint64]int{}, ended: make(chan struct{})}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	former, other, newest := &pgx.ConnConfig{}, &pgx.ConnConfig{}, &pgx.ConnConfig{}
	for _, config := range []*pgx.ConnConfig{former, other} {
		if err := p.beforeConnect(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	p.use(Login{"b", "y", 2})
	if err := p.beforeConnect(t.Context(), newest); err != nil {
		t.Fatal(err)
	}
	if former.User != "a" || former.Password != "x" || newest.User != "b" || newest.Password != "y" {
		t.Errorf("%s, %s", former.User, newest.User)
	}
	for _, config := range []*pgx.ConnConfig{former, other} {
		if err := p.awaitOthers(over, 2); !errors.Is(err, context.Canceled) {
			t.Error("an attempt with the former login was not waited for")
		}
		tracer, is := config.Tracer.(pgx.ConnectTracer)
		if !is {
			t.Fatal("the driver would not tell of the end of an attempt")
		}
		tracer.TraceConnectEnd(t.Context(), pgx.TraceConnectEndData{})
	}
	if err := p.awaitOthers(over, 2); err != nil {
		t.Errorf("nothing is in flight with the former login: %v", err)
	}
}

// What the pool has is acknowledged whenever it is another than before, also if
// whoever counts the versions has begun anew.
func TestALowerVersionIsAcknowledgedToo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	versions, said := []uint64{7, 7, 2, 2}, []uint64(nil)
	p := &Pool{connecting: map[uint64]int{}}
	p.source = func(context.Context) (Login, error) {
		p.use(Login{"a", "x", versions[0]}) // so that no connection is tried
		defer func() { versions = versions[1:] }()
		if len(versions) == 1 {
			cancel()
		}
		return p.login(), nil
	}
	err := p.Run(ctx, time.Millisecond, func(_ context.Context, version uint64) error {
		said = append(said, version)
		return nil
	}, func(err error) { t.Error(err) })
	if err != nil || !slices.Equal(said, []uint64{7, 2}) {
		t.Errorf("%v, %v", said, err)
	}
}

func TestLoginsInVault(t *testing.T) {
	const good = `{"data":{"data":{"username":"a","password":"hush","tenantbroker_version":"7"}}}`
	for answer, fine := range map[string]bool{
		good: true, strings.Replace(good, `"7"`, `""`, 1): false, strings.Replace(good, `"hush"`, `""`, 1): false,
		`{"data":null}`: false, `nonsense`: false, `{"data":{"data":"` + strings.Repeat("x", maxAnswer) + `"}}`: false,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/secret/data/shared/orders" || r.Header.Get("X-Vault-Token") != "t" {
				w.WriteHeader(http.StatusForbidden)
			}
			_, _ = io.WriteString(w, answer)
		}))
		source := VaultKV(server.Client(), server.URL, "secret/data/shared/orders", func() string { return "t" })
		l, err := source(t.Context())
		if fine && (err != nil || l != Login{"a", "hush", 7}) || !fine && err == nil {
			t.Errorf("%.60s: %v", answer, err)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%v", err)
		}
		server.Close()
		if _, err := source(t.Context()); err == nil {
			t.Error("a server that is away gives a login")
		}
	}
}
