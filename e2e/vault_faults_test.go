package e2e

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/devvault"
)

// vaultFault is one way in which a Vault fails under a running broker.
type vaultFault struct {
	name string
	// begin makes it so, and returns what ends it. Proxies stand between each
	// broker and the Vault.
	begin  func(ctx context.Context, v *testVault, proxies []*devvault.Proxy) (end func(context.Context) error, err error)
	silent bool // a broker may get over it by itself, before anybody asks
	// relogin: what it took to get over it, which the metrics tell.
	relogin bool
	users   fate // of the database users that Vault made for brokers
}

// fate is what becomes of something under a fault.
type fate int

const (
	live   fate = iota
	ended       // by Vault, with the token of the broker
	either      // it depends on what Vault was at when it went
)

func vaultFaults() []vaultFault {
	return []vaultFault{
		{name: "killed", begin: func(_ context.Context, v *testVault, _ []*devvault.Proxy) (func(context.Context) error, error) {
			v.Kill()
			return v.Restart, nil
		}},
		{name: "sealed", begin: func(ctx context.Context, v *testVault, _ []*devvault.Proxy) (func(context.Context) error, error) {
			return v.Unseal, v.Seal(ctx)
		}},
		{name: "frozen", begin: func(_ context.Context, v *testVault, _ []*devvault.Proxy) (func(context.Context) error, error) {
			return func(context.Context) error { return v.Thaw() }, v.Freeze()
		}},
		{name: "each answer takes 5 s", begin: everywhere(devvault.Fault{Delay: 5 * time.Second})},
		{name: "429", begin: quota},
		{name: "503", begin: everywhere(devvault.Fault{Status: http.StatusServiceUnavailable, Body: `{"errors":[]}`})},
		{name: "500 after taking effect", begin: everywhere(devvault.Fault{
			Match: changes, Effect: true, Status: http.StatusInternalServerError, Body: `{"errors":["internal error"]}`,
		})},
		{name: "no answer after taking effect", begin: everywhere(devvault.Fault{Match: changes, Effect: true, Cut: true})},
		{name: "token revoked", silent: true, relogin: true, users: ended, begin: func(ctx context.Context, v *testVault, _ []*devvault.Proxy) (func(context.Context) error, error) {
			return func(context.Context) error { return nil }, v.logOut(ctx)
		}},
		{name: "token revoked and no login", users: ended, begin: func(ctx context.Context, v *testVault, proxies []*devvault.Proxy) (func(context.Context) error, error) {
			end, err := everywhere(devvault.Fault{
				Match: devvault.At("auth/approle/login"), Status: http.StatusServiceUnavailable, Body: `{"errors":[]}`,
			})(ctx, v, proxies)
			if err != nil {
				return nil, err
			}
			return end, v.logOut(ctx)
		}},
		{name: "policy shrunk", begin: func(ctx context.Context, v *testVault, _ []*devvault.Proxy) (func(context.Context) error, error) {
			_, err := v.Do(ctx, http.MethodPut, "sys/policies/acl/"+vaultPolicy, map[string]any{
				"policy": `path "auth/token/lookup-self" { capabilities = ["read"] }`, // what the policy "default" has too
			})
			return func(ctx context.Context) error {
				_, err := v.Do(ctx, http.MethodPut, "sys/policies/acl/"+vaultPolicy, map[string]any{"policy": brokerPolicy})
				return err
			}, err
		}},
		{name: "storage rolled back", silent: true, users: either, begin: func(ctx context.Context, v *testVault, _ []*devvault.Proxy) (func(context.Context) error, error) {
			before, err := v.CopyStorage()
			if err != nil {
				return nil, err
			}
			// What the brokers get from now on is not in the copy.
			if err := v.logOut(ctx); err != nil {
				return nil, err
			}
			return func(context.Context) error { return nil }, v.RollBack(ctx, before)
		}},
	}
}

// everywhere has all proxies do it.
func everywhere(f devvault.Fault) func(context.Context, *testVault, []*devvault.Proxy) (func(context.Context) error, error) {
	return func(_ context.Context, _ *testVault, proxies []*devvault.Proxy) (func(context.Context) error, error) {
		var repairs []func()
		for _, p := range proxies {
			repairs = append(repairs, p.Break(f))
		}
		return func(context.Context) error {
			for _, repair := range repairs {
				repair()
			}
			return nil
		}, nil
	}
}

// changes are the requests that sign, seal, make or change something in Transit,
// in KV or in a database.
func changes(method, path string) bool {
	if strings.HasPrefix(path, "database/creds/") {
		return true // reading them makes a user
	}
	return method != http.MethodGet && path != "sys/leases/lookup" &&
		slices.ContainsFunc([]string{"transit/", "secret/", "database/", "sys/leases/"}, func(at string) bool { return strings.HasPrefix(path, at) })
}

// quota has Vault itself say 429 to all but one request in an hour to each of
// its engines.
func quota(ctx context.Context, v *testVault, _ []*devvault.Proxy) (func(context.Context) error, error) {
	const path = "sys/quotas/rate-limit/e2e-"
	var failed error
	for _, mount := range []string{"transit", "secret", "database"} {
		_, err := v.Do(ctx, http.MethodPost, path+mount, map[string]any{"path": mount + "/", "rate": 1, "interval": "1h"})
		failed = errors.Join(failed, err)
	}
	return func(ctx context.Context) (failed error) {
		for _, mount := range []string{"transit", "secret", "database"} {
			_, err := v.Do(ctx, http.MethodDelete, path+mount, nil)
			failed = errors.Join(failed, err)
		}
		return failed
	}, failed
}
