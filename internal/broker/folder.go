package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// makeFolder makes a folder with mode 0700, or takes an empty one and gives it
// that mode. It refuses one that holds anything.
func makeFolder(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: %s is not empty (%s is in it)", fs.ErrExist, path, entries[0].Name())
	}
	return os.Chmod(path, 0o700) //nolint:gosec // a folder that only its owner may enter
}

// checkFolder refuses a data folder that others may enter.
func checkFolder(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", path)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("others may enter %s (mode %04o): run chmod 700 on it", path, info.Mode().Perm())
	}
	return nil
}

// checkWritable refuses a file that others may change.
func checkWritable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may change %s (mode %04o): run chmod go-w on it", path, info.Mode().Perm())
	}
	return nil
}

// writeNew writes a file with mode 0600 that must not exist yet, and returns
// when it is durable.
func writeNew(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the folder
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path) // half a file is worse than none
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	d, err := os.Open(path) //nolint:gosec // the operator names the folder
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
