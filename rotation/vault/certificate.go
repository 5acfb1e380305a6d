package vault

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
)

// Certificate logs in with a client certificate.
type Certificate struct {
	Mount string // default cert
	Role  string // empty: whichever of Vault's fits
	// PEM files, read again for each connection. The certificate is presented
	// on every connection, since Vault asks for the same one when the token is
	// renewed.
	CertFile, KeyFile string
}

func (Certificate) method() string { return "certificate" }

func (l Certificate) check() error {
	if err := required("a file with the certificate", l.CertFile, "a file with its key", l.KeyFile); err != nil {
		return err
	}
	return checkMount(l.Mount)
}

func (l Certificate) checkFiles() error {
	_, err := l.certificate()
	return err
}

func (l Certificate) certificate() (*tls.Certificate, error) {
	if err := checkMode(os.Stat(l.KeyFile)); err != nil {
		return nil, fmt.Errorf("%s: %w", l.KeyFile, err)
	}
	pair, err := tls.LoadX509KeyPair(l.CertFile, l.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.CertFile, err)
	}
	return &pair, nil
}

func (l Certificate) signIn(ctx context.Context, k *core) (auth, bool, error) {
	if _, err := l.certificate(); err != nil { // else it would look like a broken connection
		return auth{}, false, err
	}
	k.transport.CloseIdleConnections() // they have presented what the files held then
	body := map[string]any{}
	if l.Role != "" {
		body["name"] = l.Role
	}
	return k.authenticate(ctx, or(l.Mount, "cert"), body)
}
