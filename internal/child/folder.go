package child

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Folder is a temporary folder for the files of a child. If this program is
// killed, the next one that takes a folder of the same kind removes it.
type Folder struct {
	path string
	lock *os.File
}

// young folders may be about to be locked.
const young = time.Minute

// TakeFolder makes a folder in the system's for temporary files. The prefix says
// what kind it is, and ends in a dash.
func TakeFolder(prefix string) (*Folder, error) {
	if err := sweep(prefix, time.Now().Add(-young)); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	lock, err := lockFolder(path)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	return &Folder{path, lock}, nil
}

// Path is where it is.
func (f *Folder) Path() string { return f.path }

// Remove removes the folder with all that is in it. It does what it can: what
// is left is swept later.
func (f *Folder) Remove() {
	_ = os.RemoveAll(f.path)
	_ = f.lock.Close() // the lock goes with the file
}

// sweep removes folders from before whose program has ended.
func sweep(prefix string, before time.Time) error {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range found {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || info.ModTime().After(before) {
			continue // gone meanwhile, or not for us
		}
		lock, err := lockFolder(path)
		if err != nil {
			continue // in use, or another user's
		}
		_ = os.RemoveAll(path) // tried again by the next
		_ = lock.Close()
	}
	return nil
}

func lockFolder(path string) (*os.File, error) {
	f, err := os.Open(path) //nolint:gosec // a folder of our own making
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
