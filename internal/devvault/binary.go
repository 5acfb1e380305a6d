package devvault

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/tenantbroker/tenantbroker/internal/child"
)

// Built is the version that script/vault builds; its name holds it.
const Built = "1.21.0"

// The oldest version that is used from PATH.
const wantMajor, wantMinor = 1, 21

// ErrNoVault says that there is none, and what to do.
var ErrNoVault = errors.New("devvault: no vault " + Built + " or newer in PATH, nor one that was built: run script/vault (once, some minutes)")

// Binary finds the program: vault from PATH where that is 1.21 or newer, else
// what script/vault has built into the user's cache.
func Binary(ctx context.Context) (string, error) {
	if path, err := exec.LookPath("vault"); err == nil {
		out, err := exec.CommandContext(ctx, path, "version").Output() //nolint:gosec // the user's own vault
		if err == nil && newEnough(string(out)) {
			return path, nil
		}
	}
	path, err := child.Built("vault", Built)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoVault, err)
	}
	return path, nil
}

// newEnough reads what vault version prints: "Vault v1.21.0 (…), built …".
func newEnough(said string) bool {
	rest, found := strings.CutPrefix(said, "Vault v")
	if !found {
		return false
	}
	major, rest, found := strings.Cut(rest, ".")
	if !found {
		return false
	}
	minor, _, found := strings.Cut(rest, ".")
	if !found {
		return false
	}
	a, err := strconv.ParseUint(major, 10, 16)
	if err != nil {
		return false
	}
	b, err := strconv.ParseUint(minor, 10, 16)
	return err == nil && (a > wantMajor || (a == wantMajor && b >= wantMinor))
}
