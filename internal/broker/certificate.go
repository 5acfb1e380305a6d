package broker

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// certificatePoll is how often the files are looked at.
const certificatePoll = 5 * time.Second

// certificate is the public listener's key pair, read again when its files
// change. A pair that doesn't load leaves the old one in place.
type certificate struct {
	certFile, keyFile string
	logger            *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	mu   sync.Mutex // one reload at a time
	seen stamp
}

// stamp tells one state of the two files from another.
type stamp struct{ cert, key fileStamp }

type fileStamp struct {
	modified int64
	size     int64
	exists   bool
}

// loadCertificate reads the pair for the first time; a bad one is an error.
func loadCertificate(certFile, keyFile string, logger *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, logger: logger}
	// The stamp first: a change that comes between is then seen by the next poll.
	c.seen = c.stamp()
	pair, err := c.read()
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(keyFile); err == nil && info.Mode().Perm()&0o007 != 0 {
		logger.Warn("the TLS private key can be read by everyone on this machine", "file", keyFile)
	}
	c.current.Store(pair)
	return c, nil
}

// config is the TLS side of the public listener: TLS 1.3 and nothing older.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current.Load(), nil
		},
	}
}

// Run looks at the files from time to time until ctx ends.
func (c *certificate) Run(ctx context.Context, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			c.reload(false)
		}
	}
}

// reload reads the pair if its files have changed, or always if forced.
func (c *certificate) reload(force bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.stamp()
	if now == c.seen && !force {
		return
	}
	pair, err := c.read()
	if err != nil {
		// Perhaps only half of the pair has been replaced yet: its other half
		// changes the stamp again, and the next poll reads both.
		c.logger.Error("the new TLS certificate is not usable, the old one stays", "error", err)
		c.seen = now
		return
	}
	c.seen = now
	c.current.Store(pair)
	c.logger.Info("TLS certificate read", "file", c.certFile, "not_after", pair.Leaf.NotAfter)
}

func (c *certificate) read() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	return &pair, nil
}

func (c *certificate) stamp() stamp {
	return stamp{stampOf(os.Stat(c.certFile)), stampOf(os.Stat(c.keyFile))}
}

func stampOf(info fs.FileInfo, err error) fileStamp {
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{modified: info.ModTime().UnixNano(), size: info.Size(), exists: true}
}
