package devpostgres

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// ErrNoPostgres says that there is none, and what to do.
var ErrNoPostgres = errors.New("devpostgres: no PostgreSQL 15 or newer: run script/setup, or install postgresql-15")

// oldest is the oldest version that is used.
const oldest = 15

// findPrograms finds the folder of the newest server that Debian's packages
// have installed, else that of the one in PATH.
func findPrograms() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	var versions []int
	for _, path := range found {
		v, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		if err == nil && v >= oldest {
			versions = append(versions, v)
		}
	}
	if len(versions) > 0 {
		return fmt.Sprintf("/usr/lib/postgresql/%d/bin", slices.Max(versions)), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoPostgres, err)
	}
	return filepath.Dir(path), nil
}

func (s *Server) program(name string) string { return filepath.Join(s.programs, name) }

// account is the user that the server runs as, if it isn't this program's.
type account struct{ uid, gid int }

// unprivileged finds a user for a program that runs as root, which PostgreSQL
// refuses: the package's own, or nobody. For others nil: their own will do.
func unprivileged() (*account, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	var errs []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 31)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 31)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &account{uid: int(uid), gid: int(gid)}, nil
	}
	return nil, fmt.Errorf("devpostgres: PostgreSQL does not run as root: %w", errors.Join(errs...))
}

func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

func (a *account) attributes() *syscall.SysProcAttr {
	if a == nil {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}} //nolint:gosec // 31 bits
}
