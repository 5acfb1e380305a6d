package broker

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"os"
	"time"
)

// AlterBackup lets change alter the store in a backup and seals it anew, as
// only a holder of the key-encryption key of c can.
func AlterBackup(ctx context.Context, c Config, path string, change func(store string) error) error {
	kek, err := loadKEK(c, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_, size, err := findSeal(f, info.Size())
	if err != nil {
		return err
	}
	if err := os.Truncate(path, size); err != nil {
		return err
	}
	if err := change(path); err != nil {
		return err
	}
	store, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(store)
	trailer, err := statement{backupVersion, c.issuer, time.Now(), int64(len(store)), digest[:]}.seal(ctx, kek)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(store, trailer...), 0o600)
}
