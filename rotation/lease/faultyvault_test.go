package lease

import (
	"context"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// faults is the real Vault, with what it can't be made to do when asked: to be
// out of reach, to fail, and to fail after it took effect.
type faults struct {
	Vault
	mu     sync.Mutex
	before map[string]error // by call: fails instead
	after  map[string]error // by call: fails although it was done
	calls  map[string]int
	during map[string]func() // by call: runs before it
	login  *Session
}

func (f *faults) set(where *map[string]error, call string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if *where == nil {
		*where = map[string]error{}
	}
	(*where)[call] = err
}

func (f *faults) fail(call string, err error)      { f.set(&f.before, call, err) }
func (f *faults) failAfter(call string, err error) { f.set(&f.after, call, err) }

func (f *faults) duringCall(call string, fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.during = map[string]func(){call: fn}
}

func (f *faults) begin(call string) error {
	f.mu.Lock()
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[call]++
	err, fn := f.before[call], f.during[call]
	f.mu.Unlock()
	if fn != nil {
		fn()
	}
	return err
}

func (f *faults) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

func (f *faults) total() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		n += c
	}
	return n
}

func (f *faults) end(call string, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.after[call]
}

func (f *faults) PutRole(ctx context.Context, mount, name string, r vault.Role) error {
	if err := f.begin("put role"); err != nil {
		return err
	}
	return f.end("put role", f.Vault.PutRole(ctx, mount, name, r))
}

func (f *faults) DeleteRole(ctx context.Context, mount, name string) error {
	if err := f.begin("delete role"); err != nil {
		return err
	}
	return f.end("delete role", f.Vault.DeleteRole(ctx, mount, name))
}

func (f *faults) Roles(ctx context.Context, mount string) ([]string, error) {
	if err := f.begin("roles"); err != nil {
		return nil, err
	}
	return f.Vault.Roles(ctx, mount)
}

func (f *faults) Credentials(ctx context.Context, mount, role string) (vault.Credentials, error) {
	if err := f.begin("credentials"); err != nil {
		return vault.Credentials{}, err
	}
	c, err := f.Vault.Credentials(ctx, mount, role)
	if err := f.end("credentials", err); err != nil {
		return vault.Credentials{}, err
	}
	return c, nil
}

func (f *faults) Known(ctx context.Context, id string) (bool, error) {
	if err := f.begin("known"); err != nil {
		return false, err
	}
	return f.Vault.Known(ctx, id)
}

func (f *faults) Leases(ctx context.Context, mount, role string) ([]string, error) {
	if err := f.begin("leases"); err != nil {
		return nil, err
	}
	return f.Vault.Leases(ctx, mount, role)
}

func (f *faults) Renew(ctx context.Context, id string, d time.Duration) (time.Duration, error) {
	if err := f.begin("renew"); err != nil {
		return 0, err
	}
	got, err := f.Vault.Renew(ctx, id, d)
	return got, f.end("renew", err)
}

func (f *faults) Revoke(ctx context.Context, id string) error {
	if err := f.begin("revoke"); err != nil {
		return err
	}
	return f.end("revoke", f.Vault.Revoke(ctx, id))
}

func (f *faults) Value(ctx context.Context, mount, path string) (vault.KVValue, error) {
	if err := f.begin("value"); err != nil {
		return vault.KVValue{}, err
	}
	return f.Vault.Value(ctx, mount, path)
}

func (f *faults) Session() Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.login != nil {
		return *f.login
	}
	return f.Vault.Session()
}

func (f *faults) session(s *Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.login = s
}
