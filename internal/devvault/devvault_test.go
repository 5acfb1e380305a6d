package devvault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// What the broker needs of Vault must be in the one that is built.
func TestADevVaultHasWhatTheBrokerNeeds(t *testing.T) {
	s := ForTest(t, Options{Dev: true})
	h, err := s.Health(t.Context())
	if err != nil || !h.Initialized || h.Sealed || h.Standby || !newEnough("Vault v"+h.Version) {
		t.Fatalf("health %+v, %v", h, err)
	}
	for _, kind := range []string{"transit", "kv", "database"} {
		if err := s.Mount(t.Context(), kind, "some-"+kind, nil); err != nil {
			t.Error(err)
		}
	}
	for _, kind := range []string{"approle", "kubernetes", "jwt", "cert"} {
		if _, err := s.Do(t.Context(), http.MethodPost, "sys/auth/"+kind, map[string]any{"type": kind}); err != nil {
			t.Error(err)
		}
	}
	put(t, s, "secret", "at once", 1)
	if s.CACert() != "" || s.AuditLog() != "" {
		t.Error("a -dev vault has neither TLS nor an audit device")
	}
}

func TestKVIsReadyWhenMountReturns(t *testing.T) {
	s := ForTest(t, Options{Dev: true})
	for i := range 10 {
		at := fmt.Sprintf("kv-%d", i)
		if err := s.Mount(t.Context(), "kv", at, map[string]string{"version": "2"}); err != nil {
			t.Fatal(err)
		}
		put(t, s, at, "at once", 1)
	}
}

func TestWhatIsStoredOutlivesAKill(t *testing.T) {
	s := withKV(t)
	put(t, s, "kv", "kept", 1)
	at, pid := s.URL(), s.PID()
	s.Kill()
	if _, err := s.Health(t.Context()); err == nil {
		t.Error("it answers although it was killed")
	}
	if err := s.RestartSealed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h, err := s.Health(t.Context()); err != nil || !h.Sealed {
		t.Fatalf("it came back as %+v, %v; it must be sealed", h, err)
	}
	if err := s.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.URL() != at || s.PID() == pid {
		t.Errorf("it is at %s, was at %s; process %d, was %d", s.URL(), at, s.PID(), pid)
	}
	if got := get(t, s, "kv"); got != "kept" {
		t.Errorf("it holds %q", got)
	}
}

func TestSealedItAnswersAndGivesNothing(t *testing.T) {
	s := withKV(t)
	put(t, s, "kv", "kept", 1)
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h, err := s.Health(t.Context()); err != nil || !h.Sealed || !h.Initialized {
		t.Errorf("health %+v, %v", h, err)
	}
	_, err := s.Do(t.Context(), http.MethodGet, "kv/data/a", nil)
	if said, ok := errors.AsType[*Error](err); !ok || said.Status != http.StatusServiceUnavailable {
		t.Errorf("a read said %v; 503 was expected", err)
	}
	if err := s.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, "kv"); got != "kept" {
		t.Errorf("it holds %q", got)
	}
}

func TestFrozenItDoesNotAnswer(t *testing.T) {
	s := withKV(t)
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Do(short, http.MethodGet, "sys/health", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call said %v; none was to come", err)
	}
	if err := s.Thaw(); err != nil {
		t.Fatal(err)
	}
	put(t, s, "kv", "after", 1)
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	s.Kill() // must end a frozen one too
}

func TestRolledBackItHasForgotten(t *testing.T) {
	s := withKV(t)
	put(t, s, "kv", "old", 1)
	before, err := s.CopyStorage()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "kv", "new", 2)
	if err := s.RollBack(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, "kv"); got != "old" {
		t.Errorf("it holds %q", got)
	}
	put(t, s, "kv", "again", 2) // version 2 is free again
	if err := s.RollBack(t.Context(), before); err != nil {
		t.Fatalf("a copy serves once only: %v", err)
	}
}

func TestTheAuditDeviceSeesEveryCall(t *testing.T) {
	s := withKV(t)
	put(t, s, "kv", "the value", 1)
	log, err := os.ReadFile(s.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(log, []byte(`"path":"kv/data/a"`)) {
		t.Errorf("the call is not in the log:\n%s", log)
	}
	if bytes.Contains(log, []byte("the value")) || bytes.Contains(log, []byte(s.RootToken())) {
		t.Error("the log shows a secret")
	}
}

func TestCPUGrowsWithWork(t *testing.T) {
	s := ForTest(t, Options{Dev: true})
	before, err := s.CPU()
	if err != nil || before <= 0 {
		t.Fatalf("%v, %v: it has started", before, err)
	}
	for after := before; after == before; {
		put(t, s, "secret", "v", 0)
		if after, err = s.CPU(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFailedStartShowsTheOutputWithoutSecrets(t *testing.T) {
	_, err := Start(t.Context(), Options{Config: map[string]any{"listener": "none"}})
	if err == nil || !strings.Contains(err.Error(), "its output:\n") || !strings.Contains(err.Error(), "listener") {
		t.Errorf("it said: %v", err)
	}
	dev := ForTest(t, Options{Dev: true})
	patient, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for printed := []byte(nil); !bytes.Contains(printed, []byte(dev.RootToken())); { // vault -dev prints it a little later
		if printed, err = os.ReadFile(dev.output()); err != nil || patient.Err() != nil {
			t.Fatal(err, patient.Err())
		}
	}
	for _, secret := range []string{dev.RootToken(), "Unseal Key:"} {
		if strings.Contains(dev.tail(), secret) {
			t.Errorf("what would be shown holds %q", secret)
		}
	}
	if !strings.Contains(dev.tail(), "vault is unsealed") {
		t.Errorf("what would be shown tells nothing:\n%s", dev.tail())
	}
}

func TestFilesAreGoneAfterStop(t *testing.T) {
	s, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if _, err := os.Stat(s.folder.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	s.Stop() // twice does no harm
}

func withKV(t *testing.T) *Server {
	t.Helper()
	s := ForTest(t, Options{})
	if err := s.Mount(t.Context(), "kv", "kv", map[string]string{"version": "2"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// put writes a value and expects it to become the version; 0: any.
func put(t *testing.T, s *Server, mount, value string, version float64) {
	t.Helper()
	answer, err := s.Do(t.Context(), http.MethodPost, mount+"/data/a", map[string]any{"data": map[string]any{"k": value}})
	if err != nil {
		t.Fatal(err)
	}
	if made, _ := answer["data"].(map[string]any); version != 0 && made["version"] != version {
		t.Fatalf("written as %v, not as version %v", made["version"], version)
	}
}

func get(t *testing.T, s *Server, mount string) string {
	t.Helper()
	answer, err := s.Do(t.Context(), http.MethodGet, mount+"/data/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	outer, _ := answer["data"].(map[string]any)
	inner, _ := outer["data"].(map[string]any)
	value, _ := inner["k"].(string)
	return value
}
