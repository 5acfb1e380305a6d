package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// nextKEK is what the name of the key-encryption key that is to come ends in,
// until the store is sealed under it.
const nextKEK = ".next"

// RekeyOptions say whose key-encryption key is changed.
type RekeyOptions struct {
	Config Config
	// From is the key-encryption key of before, where the configuration names
	// another one already; zero: the one that it names.
	From   FormerKEK
	Now    func() time.Time
	Logger *slog.Logger
	// Done, unless nil, is told of each of RekeySteps when it can't be lost any
	// more: for tests that end the process there.
	Done func(step string)
}

// RekeySteps are the steps of Rekey. A broker starts after each of them, and
// Rekey, called again, goes on from there.
var RekeySteps = []string{"key written", "key named", "store sealed", "former key kept", "key in place"}

// Rekeyed is what Rekey did.
type Rekeyed struct {
	Keys    int    // sealed anew by this call
	Resumed bool   // a change that was cut off before
	File    string // with the new key-encryption key; empty: it is in Vault
	Former  string // with the one before; empty: it is in Vault, or none was asked for
	Name    string // of the new key-encryption key, for a person
}

// Rekey makes a new key-encryption key for a broker that is not running, seals
// every private key of the store anew under it, and puts it in the place of the
// former one, which it keeps beside it: backups from before need it. The keys
// themselves stay as they are.
//
// With From, or a key-encryption key in Vault, it goes from one that exists to
// another: see between.
//
// The store changes in one commit, which can't be one with the change of the
// files. So the new key is on disk as kek_file + ".next" before that commit, and
// a broker that finds such a file opens with either key.
func Rekey(ctx context.Context, o RekeyOptions) (done Rekeyed, err error) {
	if done, err = rekey(ctx, o); err != nil {
		return done, fmt.Errorf("rekey: %w", err)
	}
	return done, nil
}

func rekey(ctx context.Context, o RekeyOptions) (done Rekeyed, err error) {
	c := o.Config
	if o.Done == nil {
		o.Done = func(string) {}
	}
	if err := checkFolder(c.doc.DataDir); err != nil {
		return done, err
	}
	if _, err := os.Stat(c.StorePath()); err != nil { // opening would create one
		return done, err
	}
	if served(ctx, c.Socket()) {
		return done, errors.New("a broker is serving this data folder: stop it first")
	}
	exists := o.From != FormerKEK{} || c.doc.KEKVaultKey != ""
	if !exists {
		// Where a link names the key, as some deployments have it, the file is replaced.
		if done.File, err = behindLinks(c.doc.KEKFile); err != nil {
			return done, err
		}
	}
	// From here to the end the store's lock keeps any broker from starting.
	st, _, err := openStore(ctx, c.StorePath(), c, bolt.Options{LockTimeout: time.Second, Now: o.Now, Logger: o.Logger})
	if err != nil {
		return done, fmt.Errorf("no broker may run meanwhile: %w", err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := checkClaimed(ctx, st); err != nil {
		return done, err
	}
	if exists {
		return o.between(ctx, st)
	}
	done.Name = done.File
	former, err := keys.LoadKeyFile(done.File)
	if err != nil {
		return done, err
	}
	if _, err := os.Lstat(done.File + nextKEK); err == nil {
		done.Resumed = true
	} else if err := keys.OpensAll(ctx, st, former); err != nil { // before anything is changed
		return done, err
	}
	next, err := o.newKEK(done.File)
	if err != nil {
		return done, err
	}
	if done.Keys, err = keys.Rewrap(ctx, st, former, next, o.Now); err != nil {
		return done, err
	}
	o.Done("store sealed")
	if done.Former, err = o.keepFormer(done.File); err != nil {
		return done, err
	}
	o.Done("former key kept")
	if err := errors.Join(os.Rename(done.File+nextKEK, done.File), syncFolder(filepath.Dir(done.File))); err != nil {
		return done, err
	}
	o.Done("key in place")
	return done, nil
}

// newKEK makes the key-encryption key that is to come, or takes the one that a
// change which was cut off has made: the store may be sealed under it already.
func (o RekeyOptions) newKEK(file string) (keys.KEK, error) {
	to := file + nextKEK
	if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		partial := to + ".partial"
		if err := os.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an attempt that was cut off
			return nil, err
		}
		if err := keys.GenerateKeyFile(partial); err != nil {
			return nil, err
		}
		o.Done("key written")
		if err := os.Rename(partial, to); err != nil {
			return nil, err
		}
	}
	// Nothing may be sealed under a key whose name could be lost.
	if err := syncFolder(filepath.Dir(to)); err != nil {
		return nil, err
	}
	o.Done("key named")
	return keys.LoadKeyFile(to)
}

// keepFormer gives the former key-encryption key a second name, until when it
// was in use, unless a change that was cut off has done so.
func (o RekeyOptions) keepFormer(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	folder := filepath.Dir(file)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		other, err := entry.Info()
		if err == nil && strings.HasPrefix(entry.Name(), filepath.Base(file)+".until-") && os.SameFile(info, other) {
			return filepath.Join(folder, entry.Name()), syncFolder(folder)
		}
	}
	name := file + ".until-" + o.Now().UTC().Format("20060102T150405.000Z")
	return name, errors.Join(os.Link(file, name), syncFolder(folder)) // unlike a rename, never overwrites
}

// maxLinks bounds the links that are followed, as Linux does.
const maxLinks = 40

// behindLinks returns the file that a path names once the path itself is no
// link any more. Folders on the way may be links; they are the kernel's affair,
// since their text may mean nothing here, as under /proc/PID/root.
func behindLinks(path string) (string, error) {
	for range maxLinks {
		info, err := os.Lstat(path)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			return path, nil
		}
		next, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(next) {
			next = filepath.Dir(path) + string(filepath.Separator) + next
		}
		path = next
	}
	return "", fmt.Errorf("%s: too many links", path)
}

// loadKEK loads the key-encryption key. Beside the one that a change which was
// cut off has left behind, the store may be sealed under either.
func loadKEK(c Config, client *vault.Client, logger *slog.Logger) (keys.KEK, error) {
	if c.doc.KEKVaultKey != "" {
		return keys.NewTransitKEK(client.Transit(c.doc.KEKMount), c.doc.KEKMount, c.doc.KEKVaultKey)
	}
	kek, err := keys.LoadKeyFile(c.doc.KEKFile)
	if err != nil {
		return nil, err
	}
	file, err := behindLinks(c.doc.KEKFile)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(file + nextKEK); errors.Is(err, fs.ErrNotExist) {
		return kek, nil
	}
	next, err := keys.LoadKeyFile(file + nextKEK)
	if err != nil {
		return nil, fmt.Errorf("a change of the key-encryption key was cut off: %w", err)
	}
	logger.Warn("a change of the key-encryption key was cut off: stop the broker and run broker rekey again", "next", file+nextKEK)
	return keys.KEKs(kek, next), nil
}
