package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// assertionsInFlight is how long an assertion that was used up after the backup
// was taken, which the restored store has forgotten, could be accepted again.
const assertionsInFlight = credential.MaxAssertionLifetime + 2*credential.Leeway

// RestoreOptions say what is restored to where.
type RestoreOptions struct {
	From   string // the backup
	Config Config // of the broker that will serve it; its data folder holds no store
	Now    func() time.Time
	Logger *slog.Logger // default: none

	client *vault.Client // nil: none
}

// Restored is what Restore did.
type Restored struct {
	Taken   time.Time // when the backup was
	Records uint64    // audit records that were verified
	Revoked []string  // key ids of the backup's signing keys
	Until   time.Time // no token is issued before
}

// Restore puts a backup in place as the store of a broker that is not running
// (I9). Before it believes a byte of the file, it checks the seal: that a holder
// of the key-encryption key made this backup, of this issuer, and that nothing
// was altered since. It also checks every page, the schema, that the
// key-encryption key is the store's, and every chain of the audit log. Then
// all that was issued before is revoked: by an epoch, and by an emergency
// revocation of all the backup's signing keys, standby ones included. The
// broker issues nothing until assertions in flight have expired.
//
// It never overwrites a store, and leaves none when it fails. It refuses while a
// broker serves the data folder, even from a file that was moved away: what
// that one issues, and what it sees used up, the restored store would not know.
func Restore(ctx context.Context, o RestoreOptions) (done Restored, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	to := o.Config.StorePath()
	if err := checkFresh(to); err != nil {
		return done, fmt.Errorf("restore: a store is there already: %w", err)
	}
	if err := checkFolder(filepath.Dir(to)); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	if served(ctx, o.Config.Socket()) {
		return done, errors.New("restore: a broker is serving this data folder: stop it first")
	}
	staged := to + ".restoring"
	if err := os.Remove(staged); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an attempt that was cut off
		return done, fmt.Errorf("restore: %w", err)
	}
	defer func() { _ = os.Remove(staged) }()
	if o.client, err = reachVault(ctx, o.Config, o.Logger); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	taken, err := stageVerified(ctx, o, staged)
	if err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	if err := checkPages(staged); err != nil {
		return done, fmt.Errorf("restore: the backup is damaged: %w", err)
	}
	if done, err = prepare(ctx, o, staged, taken); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	if err := os.Link(staged, to); err != nil { // unlike a rename, never overwrites
		return done, fmt.Errorf("restore: %w", err)
	}
	return done, syncFolder(filepath.Dir(to))
}

// served reports whether somebody answers on a broker's local socket.
func served(ctx context.Context, socket string) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// prepare verifies the staged store and makes it one that may be served.
func prepare(ctx context.Context, o RestoreOptions, staged string, taken time.Time) (done Restored, err error) {
	done.Taken = taken
	now := o.Now()
	back := restored{At: now.UTC(), Until: now.UTC().Add(assertionsInFlight), Generation: newGeneration(now)}
	if done.Records, err = verifyStaged(ctx, o, staged, back); err != nil {
		return done, err
	}
	// Opened anew, the store is of the new generation.
	st, _, err := openStore(ctx, staged, o.Config, bolt.Options{Now: o.Now, Logger: o.Logger})
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := revocation.RevokeAllBefore(ctx, st, now, event(now, "", "a backup was restored")); err != nil {
		return done, err
	}
	done.Until = back.Until
	if done.Revoked, err = replaceKeys(ctx, o, st); err != nil {
		return done, err
	}
	return done, recordEvent(ctx, st, event(o.Now(), "broker.restored", fmt.Sprintf(
		"a backup of %s, %d audit records verified, %d signing keys revoked, no token before %s",
		done.Taken.Format(time.RFC3339), done.Records, len(done.Revoked), done.Until.Format(time.RFC3339))))
}

// verifyStaged checks what the backup holds and marks it as restored.
func verifyStaged(ctx context.Context, o RestoreOptions, staged string, back restored) (records uint64, err error) {
	st, _, err := openStore(ctx, staged, o.Config, bolt.Options{Now: o.Now, Logger: o.Logger})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := checkClaimed(ctx, st); err != nil {
		return 0, err
	}
	// Versions in Vault that came after the backup may have been revoked since.
	if err := keys.ForgetMarks(ctx, st); err != nil {
		return 0, err
	}
	parts, err := openKeys(ctx, o.Config, st, Deps{Now: o.Now, Logger: o.Logger}, o.client)
	if err != nil {
		return 0, err
	}
	defer parts.close()
	signer, err := parts.auditLater(ctx)
	if err != nil {
		return 0, err
	}
	report, err := auditlog.Verify(ctx, st, signer.Public())
	if err != nil {
		return report.Records, fmt.Errorf("the audit log: %w", err)
	}
	return report.Records, st.Update(ctx, func(tx store.Tx) error { return putRow(tx, restoredKey, back) })
}

// replaceKeys revokes every signing key of the backup. Standby keys first: an
// active one must not hand over to a key that was in the backup too.
func replaceKeys(ctx context.Context, o RestoreOptions, st store.Store) (revoked []string, err error) {
	parts, err := openKeys(ctx, o.Config, st, Deps{Now: o.Now, Logger: o.Logger}, o.client)
	if err != nil {
		return nil, err
	}
	defer parts.close()
	manager := parts.manager
	by := registry.By{
		Subject: credential.MustAccountID("broker"), Tenant: credential.System,
		Roles: credential.MustScopes(string(registry.RoleAdmin)), Reason: "the key was in a backup that was restored",
	}
	old := manager.List()
	for _, state := range []keys.State{keys.Standby, keys.Active, keys.Retiring} {
		for _, k := range old {
			if k.State != state {
				continue
			}
			if err := manager.Revoke(ctx, by, k.ID, by.Reason); err != nil {
				return revoked, fmt.Errorf("signing key %s: %w", k.ID, err)
			}
			revoked = append(revoked, k.ID)
		}
	}
	for _, k := range manager.Public().Keys() {
		if slices.Contains(revoked, k.ID()) {
			return revoked, fmt.Errorf("signing key %s is still published", k.ID())
		}
	}
	return revoked, manager.Ready()
}

// newGeneration names what goes on from a backup: when, and which of several.
func newGeneration(now time.Time) string {
	return now.UTC().Format("20060102") + "-" + credential.NewID()[:generationRandom]
}

const (
	generationRandom = 6
	maxGeneration    = len("-20060102-") + generationRandom
)

// stageVerified copies the snapshot of the backup to a file that must not exist,
// mode 0600, and returns when the backup was taken. After an error the file must
// not be read: what is in it may be anybody's.
func stageVerified(ctx context.Context, o RestoreOptions, staged string) (taken time.Time, err error) {
	kek, err := loadKEK(o.Config, o.client, o.Logger)
	if err != nil {
		return taken, err
	}
	in, err := os.Open(o.From)
	if err != nil {
		return taken, err
	}
	defer func() { _ = in.Close() }() // read only
	info, err := in.Stat()
	if err != nil {
		return taken, err
	}
	if !info.Mode().IsRegular() {
		return taken, fmt.Errorf("%s is not a regular file: its seal is at the end and is read first", o.From)
	}
	out, err := os.OpenFile(staged, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the folder
	if err != nil {
		return taken, err
	}
	made, err := copyVerified(ctx, kek, o.Config.issuer, out, in, info.Size())
	if err != nil {
		err = fmt.Errorf("%s: %w", o.From, err)
	}
	return made.TakenAt, errors.Join(err, out.Sync(), out.Close())
}

// readerUntil stops when ctx ends.
type readerUntil struct {
	ctx context.Context //nolint:containedctx // lives for one call
	r   io.Reader
}

func (r readerUntil) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
