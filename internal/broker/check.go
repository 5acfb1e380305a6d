package broker

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// Check looks at the files that a configuration names, without opening the
// store: the data folder, the key-encryption key, the certificates, what the
// login to Vault needs, the targets of leases. It calls nobody.
func Check(c Config) error {
	if err := checkFolder(c.doc.DataDir); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if c.doc.KEKFile != "" {
		if _, err := keys.LoadKeyFile(c.doc.KEKFile); err != nil {
			return fmt.Errorf("kek_file: %w", err)
		}
	}
	if c.doc.TLS.CertFile != "" {
		if _, err := loadCertificate(c.doc.TLS.CertFile, c.doc.TLS.KeyFile, slog.New(slog.DiscardHandler)); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	if _, err := newProxyGate(c, slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if c.doc.Vault.Address != "" {
		if err := c.vault().CheckFiles(); err != nil {
			return fmt.Errorf("vault: %w", err)
		}
	}
	if path := c.doc.Leases.TargetsFile; path != "" {
		if _, err := readTargets(path); err != nil {
			return fmt.Errorf("leases.targets_file: %w", err)
		}
	}
	return nil
}

// UnknownVariables returns those of an environment ("NAME=value") that look
// like the broker's and are not: slips, mostly. Kubernetes' own are left out.
func UnknownVariables(environment []string) []string {
	var known, unknown []string
	for _, v := range Variables() {
		known = append(known, v.Name)
	}
	for _, pair := range environment {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, prefix) || strings.HasPrefix(name, prefix+"SERVICE_") || strings.HasPrefix(name, prefix+"PORT") {
			continue
		}
		if !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}
