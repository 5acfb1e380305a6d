package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// dieEnv makes the test binary a process that does what an errand on its standard
// input says, and is killed in the middle of it.
const dieEnv = "KEYS_TEST_DIE"

func dieMain(in io.Reader) error {
	var e errand
	if err := json.NewDecoder(in).Decode(&e); err != nil {
		return err
	}
	err := e.run(context.Background(), &reaper{armed: true, dieAfter: e.DieAfter})
	return fmt.Errorf("was not killed: %w", err)
}

// outcome is what the world looks like after an errand.
type outcome struct {
	States   map[State]int
	Homes    map[string]int
	Records  map[string]int // how many of which type
	Versions int            // of the Transit key that signs
	Sign     int            // the lowest version that Vault signs with
	Verify   int            // the lowest that it verifies with
	Ages     map[string]int // of what is sealed: "kek version" → rows
}

// Killed after any of its side effects, or before the first: the process that
// comes next ends what was begun. All is then as if nobody had been killed, with
// nothing done twice, and until then no token is void that nobody revoked.
func TestKilledAfterEachSideEffectAllEndsAsIfNobodyWas(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(errands)) {
		t.Run(name, func(t *testing.T) {
			undisturbed, r := newErrand(t, name), &reaper{armed: true, dieAfter: -1}
			if err := undisturbed.run(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			want := undisturbed.outcome(t)
			if !reflect.DeepEqual(want, errands[name].want) {
				t.Fatalf("undisturbed\n%+v\nwant\n%+v", want, errands[name].want)
			}
			effects := r.effects()
			for n := range len(effects) + 1 {
				point := "before the first"
				if n > 0 {
					point = fmt.Sprintf("after %d %s", n, effects[n-1])
				}
				t.Run(point, func(t *testing.T) {
					e := newErrand(t, name)
					e.die(t, n)
					e.oldTokenLives(t)
					if err := e.run(t.Context(), &reaper{}); err != nil {
						t.Fatal(err)
					}
					if got := e.outcome(t); !reflect.DeepEqual(got, want) {
						t.Errorf("in the end\n%+v\nundisturbed\n%+v", got, want)
					}
				})
			}
		})
	}
}

// newErrand prepares the world of an errand.
func newErrand(t *testing.T, name string) *errand {
	t.Helper()
	s := sharedVault(t)
	e := &errand{Name: name, Dir: t.TempDir(), Vault: s.URL(), Token: s.RootToken(), Prefix: prefixOf(t)}
	if err := GenerateKeyFile(e.file("kek")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Do(t.Context(), "POST", "transit/keys/"+e.Prefix+"-kek", map[string]any{"type": "aes256-gcm96"}); err != nil {
		t.Fatal(err)
	}
	if prepare := errands[name].prepare; prepare != nil {
		if err := e.with(t.Context(), &reaper{}, prepare); err != nil {
			t.Fatal(err)
		}
	}
	if errands[name].rotateKEK {
		rotateKEK(t, s, e.Prefix+"-kek", nil)
	}
	return e
}

// die has another process do the errand, which is killed after some effects.
func (e *errand) die(t *testing.T, after int) {
	t.Helper()
	doomed := *e
	doomed.DieAfter = after
	told, err := json.Marshal(doomed)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), dieEnv+"=1")
	cmd.Stdin = strings.NewReader(string(told))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.String() != "signal: "+syscall.SIGKILL.String() {
		t.Fatalf("%v: %s", err, out)
	}
}

// oldTokenLives looks whether the token of before is as good as it should be.
func (e *errand) oldTokenLives(t *testing.T) {
	t.Helper()
	err := e.with(t.Context(), &reaper{}, func(ctx context.Context, w *errandWorld) error {
		m, err := w.manager(w.either)
		if err != nil {
			return err
		}
		return errors.Join(m.Refresh(ctx), w.oldTokenLives(ctx, m))
	})
	if err != nil {
		t.Error(err)
	}
}

func (e *errand) outcome(t *testing.T) outcome {
	t.Helper()
	o := outcome{States: make(map[State]int), Homes: make(map[string]int), Records: make(map[string]int)}
	err := e.with(t.Context(), &reaper{}, func(ctx context.Context, w *errandWorld) error {
		m, err := w.manager(w.either)
		if err != nil {
			return err
		}
		if err := m.Refresh(ctx); err != nil {
			return err
		}
		for _, k := range m.List() {
			o.States[k.State]++
			o.Homes[k.Home]++
			if k.Problem != "" {
				t.Errorf("%s: %s", k.ID, k.Problem)
			}
		}
		if raw := mint(t, m); verifies(t, m, raw) != nil {
			t.Error("what is minted doesn't verify")
		}
		for _, r := range logged(t, w.store) {
			o.Records[r.Type]++
		}
		rows, err := readSealed(ctx, w.store)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if o.Ages == nil {
				o.Ages = make(map[string]int)
			}
			o.Ages[w.sealedWith(row.row.Sealed)]++
		}
		info, err := w.transit.read(ctx, "transit", w.transit.keyName(credential.ES256))
		o.Versions, o.Sign, o.Verify = info.LatestVersion, info.MinEncryptionVersion, info.MinDecryptionVersion
		if errors.Is(err, vault.ErrNotFound) {
			return nil // nothing was ever signed there
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}
