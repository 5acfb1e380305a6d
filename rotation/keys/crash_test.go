package keys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// dieAt makes the test binary a process that starts a manager, turns its clock
// and lets it do what is due, and is killed at a point.
const dieAt = "KEYS_TEST_DIE_AT"

// die ends this process at once, if this is the point.
func die(at, point string) {
	if at == point {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until it comes
	}
}

// mortal is an engine and a store whose writes the process may not survive.
type mortal struct {
	TransitEngine
	store.Store
	point string
}

func (m *mortal) around(what string, do func() error) error {
	die("before "+what, m.point)
	err := do()
	if err == nil {
		die("after "+what, m.point)
	}
	return err
}

func (m *mortal) Create(ctx context.Context, name, typ string) error {
	return m.around("create", func() error { return m.TransitEngine.Create(ctx, name, typ) })
}

func (m *mortal) Rotate(ctx context.Context, name string) (n int, err error) {
	err = m.around("rotate", func() (err error) { n, err = m.TransitEngine.Rotate(ctx, name); return err })
	return n, err
}

func (m *mortal) SetMinimums(ctx context.Context, name string, decryption, encryption int) error {
	return m.around("minimums", func() error { return m.TransitEngine.SetMinimums(ctx, name, decryption, encryption) })
}

func (m *mortal) Update(ctx context.Context, fn func(store.Tx) error) error {
	return m.around("commit", func() error { return m.Store.Update(ctx, fn) })
}

// tickUntil does what is due. The arguments are Vault's address and the name of
// the file with its token, the store, the prefix, and by how many seconds the
// clock is turned after the start, again and again.
func tickUntil(point string, args []string) error {
	ctx := context.Background()
	client, err := vault.New(vault.Config{Address: args[0], Login: vault.TokenFile{Path: args[1]}})
	if err == nil {
		err = client.Login(ctx)
	}
	if err != nil {
		return err
	}
	st, err := bolt.Open(ctx, bolt.Options{Path: args[2], Writer: "one"})
	if err != nil {
		return err
	}
	doomed := &mortal{TransitEngine: client.Transit("transit"), Store: st}
	home, err := NewTransit(ctx, TransitConfig{Engine: func(string) TransitEngine { return doomed }, Prefix: args[3]})
	if err != nil {
		return err
	}
	c := newClock()
	m, err := New(Config{Store: doomed, Home: home, Now: c.now})
	if err != nil {
		return err
	}
	if len(args) == 4 { // the first start
		doomed.point = point
	}
	err = m.Start(ctx)
	doomed.point = point
	for _, seconds := range args[4:] {
		n, e := strconv.Atoi(seconds)
		c.add(time.Duration(n) * time.Second)
		err = errors.Join(err, e, m.Tick(ctx))
	}
	return fmt.Errorf("was not killed %s: %w", point, err)
}

// Wherever the process dies, the next one ends what it began: one active key,
// one standby, every version in Vault published, and no token lost.
func TestARotationThatIsKilledAnywhereEndsInOneGoodState(t *testing.T) {
	s := sharedVault(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(s.RootToken()), 0o600); err != nil {
		t.Fatal(err)
	}
	rotation := []string{fmt.Sprint(int(DefaultRotation / time.Second)), "60", "3600"} // its grace, and more
	for name, c := range map[string]struct {
		turns  []string
		points []string
	}{
		"first start": {nil, []string{"before create", "after create", "before rotate", "after rotate", "before commit", "after commit"}},
		"rotation":    {rotation, []string{"before rotate", "after rotate", "before commit", "after commit", "before minimums", "after minimums"}},
	} {
		for _, point := range c.points {
			t.Run(name+" "+point, func(t *testing.T) {
				path, prefix := filepath.Join(t.TempDir(), "db"), prefixOf(t)
				cmd := exec.CommandContext(t.Context(), self, append([]string{s.URL(), token, path, prefix}, c.turns...)...)
				cmd.Env = append(os.Environ(), dieAt+"="+point)
				out, err := cmd.CombinedOutput()
				if err == nil || !strings.Contains(err.Error(), syscall.SIGKILL.String()) {
					t.Fatalf("%v: %s", err, out)
				}
				st, err := bolt.Open(t.Context(), bolt.Options{Path: path, Writer: "one"})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = st.Close() }()
				turned, home := newClock(), newTransit(t, TransitConfig{Prefix: prefix})
				if c.turns != nil {
					turned.add(DefaultRotation)
				}
				m := startManager(t, Config{Store: st, Home: home, Now: turned.now})
				old := mint(t, m)
				for range 3 { // the notice of a standby is watched anew
					turned.add(2 * DefaultMaxAge)
					tick(t, m)
				}
				got := states(m)
				if len(got[Active]) != 1 || len(got[Standby]) != 1 || len(got[Revoked]) != 0 {
					t.Errorf("%v", got)
				}
				if want := len(c.turns) / 3; len(got[Retiring]) != want {
					t.Errorf("%d keys retire, want %d", len(got[Retiring]), want)
				}
				for _, raw := range []string{old, mint(t, m)} {
					if err := verifies(t, m, raw); err != nil {
						t.Error(err)
					}
				}
				info := transitInfo(t, home, credential.ES256)
				if published := len(got[Active]) + len(got[Standby]) + len(got[Retiring]); info.LatestVersion != published {
					t.Errorf("%d versions in Vault, %d published", info.LatestVersion, published)
				}
				if want := max(1, info.LatestVersion-1); c.turns != nil && info.MinEncryptionVersion != want {
					t.Errorf("Vault signs from version %d, want %d", info.MinEncryptionVersion, want)
				}
			})
		}
	}
}
