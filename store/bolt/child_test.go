package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// The test binary runs itself as a child where a whole process is needed: to
// be traced, to be given faults by the kernel, to fill a disk.
const childVariable = "BOLT_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childVariable); role != "" {
		if err := runChild(role, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child returns a command that runs this binary as a child, under wrapper.
func child(t *testing.T, wrapper []string, role string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	line := append(append(append([]string{}, wrapper...), self), args...)
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	cmd.Env = append(os.Environ(), childVariable+"="+role)
	return cmd
}

func runChild(role string, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	switch role {
	case "load":
		return childLoad(ctx, args[0])
	case "faults":
		return childFaults(ctx, args[0], args[1:])
	case "full":
		return childFull(ctx, args[0])
	}
	return fmt.Errorf("no role %q", role)
}

// writeOne is one update with a bit of everything, named by id.
func writeOne(ctx context.Context, s store.Store, id string, size int) error {
	now := time.Now()
	return s.Update(ctx, func(tx store.Tx) error {
		if err := tx.Once("child", id, now, now.Add(time.Hour)); err != nil {
			return err
		}
		tenant := credential.MustTenant("t" + id[len(id)-1:])
		tx.Append(audit.Record{Time: now, Type: "child", Decision: audit.Allow, Tenant: tenant, JTI: id})
		_, err := tx.Put("child", id, make([]byte, size), 0)
		return err
	})
}

// Child "load" updates from several goroutines and writes "ack ID" to standard
// output, in one system call, when an update has returned.
const (
	loadCallers = 6
	loadUpdates = 12
)

func childLoad(ctx context.Context, path string) error {
	s, err := bolt.Open(ctx, bolt.Options{Path: path, Writer: "w1"})
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	failed := make(chan error, loadCallers)
	for caller := range loadCallers {
		group.Go(func() {
			for n := range loadUpdates {
				id := fmt.Sprintf("%d-%d", caller, n)
				if err := writeOne(ctx, s, id, 100+n*300); err != nil {
					failed <- err
					return
				}
				if _, err := os.Stdout.WriteString("ack " + id + "\n"); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failed)
	return errors.Join(<-failed, s.Close())
}

// Child "faults" makes n updates one after the other, each with a row of this
// size, and prints "ID ok" or "ID error TEXT" for each, then "healthy TEXT" and how often it
// was told that the store is broken.
func childFaults(ctx context.Context, path string, args []string) error {
	n, _ := strconv.Atoi(args[0])
	size, _ := strconv.Atoi(args[1])
	told := 0
	s, err := bolt.Open(ctx, bolt.Options{Path: path, Writer: "w1", Broken: func(error) { told++ }})
	if err != nil {
		return err
	}
	// Functions run in the goroutine that commits. Bound to one thread, its
	// system calls come in an order that can be counted on.
	if err := s.Update(ctx, func(store.Tx) error { runtime.LockOSThread(); return nil }); err != nil {
		return err
	}
	for i := 1; i <= n; i++ {
		id := fmt.Sprint(i)
		switch err := writeOne(ctx, s, id, size); {
		case err == nil:
			fmt.Println(id, "ok")
		case errors.Is(err, store.ErrUnavailable):
			fmt.Println(id, "unavailable", err)
		default:
			fmt.Println(id, "error", err)
		}
	}
	fmt.Println("healthy", s.Healthy())
	fmt.Println("told", told) // the last update has returned: nobody writes it any more
	return s.Close()
}

// Child "full" fills the file system it is given, sees the store refuse, makes
// room and sees it recover by itself.
func childFull(ctx context.Context, folder string) error {
	path := filepath.Join(folder, "store.db")
	s, err := bolt.Open(ctx, bolt.Options{Path: path, Writer: "w1"})
	if err != nil {
		return err
	}
	ballast, err := os.Create(filepath.Join(folder, "ballast"))
	if err != nil {
		return err
	}
	_, _ = io.CopyN(ballast, zeroes{}, 1<<40) // until there is no room
	_ = ballast.Close()
	info, err := os.Stat(ballast.Name())
	if err != nil {
		return err
	}
	if err := os.Truncate(ballast.Name(), info.Size()-1<<20); err != nil { // 1 MiB of room
		return err
	}
	var written []string
	refused := 0
	for i := 0; refused < 20; i++ {
		id := fmt.Sprint(i)
		switch err := writeOne(ctx, s, id, 20_000); {
		case err == nil:
			written = append(written, id)
		case errors.Is(err, store.ErrUnavailable):
			refused++
			if err := s.Healthy(); err == nil || !strings.Contains(err.Error(), "disk full") {
				return fmt.Errorf("refused, and Healthy says %w", err)
			}
		default:
			return err
		}
		if i > 10_000 {
			return errors.New("a file system of a few MiB takes everything")
		}
	}
	if len(written) == 0 {
		return errors.New("nothing could be written")
	}
	if err := holds(ctx, s, written); err != nil {
		return fmt.Errorf("while full: %w", err)
	}
	if err := os.Remove(ballast.Name()); err != nil {
		return err
	}
	for start := time.Now(); s.Healthy() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			return fmt.Errorf("there is room again: %w", s.Healthy())
		}
	}
	for i := range 20 {
		id := fmt.Sprintf("after-%d", i)
		if err := writeOne(ctx, s, id, 20_000); err != nil {
			return err
		}
		written = append(written, id)
	}
	if err := holds(ctx, s, written); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = bolt.Open(ctx, bolt.Options{Path: path, Writer: "w1"}); err != nil {
		return err
	}
	if err := holds(ctx, s, written); err != nil {
		return fmt.Errorf("opened again: %w", err)
	}
	fmt.Println("written", len(written), "refused", refused)
	return s.Close()
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// holds returns an error unless s has every part of these updates, and an
// unbroken log.
func holds(ctx context.Context, s store.Store, ids []string) error {
	return s.View(ctx, func(r store.Reader) error {
		checker := audit.NewChecker(nil)
		recorded := map[string]bool{}
		for entry, err := range r.Log(0) {
			if err != nil {
				return err
			}
			if err := checker.Line(entry.Raw); err != nil {
				return err
			}
			record, _, err := audit.Parse(entry.Raw)
			if err != nil {
				return err
			}
			recorded[record.JTI] = true
		}
		if _, err := checker.Finish(); err != nil {
			return err
		}
		for _, id := range ids {
			if !recorded[id] {
				return fmt.Errorf("update %s has no audit record", id)
			}
			if _, err := r.Get("child", id); err != nil {
				return fmt.Errorf("update %s: %w", id, err)
			}
		}
		for row, err := range r.Scan("child", "", "") {
			if err != nil {
				return err
			}
			if !recorded[row.Key] {
				return fmt.Errorf("update %s is there in part", row.Key)
			}
		}
		return nil
	})
}
