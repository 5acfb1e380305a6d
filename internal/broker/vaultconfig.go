package broker

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// Vault names the HashiCorp Vault that the broker uses, and how it logs in
// there. Without an address there is none.
type Vault struct {
	Address         string        `yaml:"address" help:"Vault's URL, e.g. https://vault.example.com:8200; empty: no Vault"`
	CAFile          string        `yaml:"ca_file" help:"PEM file with the authorities of Vault's certificate; empty: those of the system"`
	ServerName      string        `yaml:"server_name" help:"name in Vault's certificate, where it isn't the host of address"`
	Namespace       string        `yaml:"namespace" help:"namespace of the login and of the engines (Vault Enterprise)"`
	Timeout         time.Duration `yaml:"timeout" help:"for one call to Vault, 100ms to 1m"`
	Login           string        `yaml:"login" help:"approle, kubernetes, jwt, certificate or token_file; required with address"`
	Mount           string        `yaml:"mount" help:"path of the auth method; empty: its usual one"`
	Role            string        `yaml:"role" help:"the role to log in as, for login: kubernetes, jwt, certificate"`
	RoleID          string        `yaml:"role_id" help:"the role id, for login: approle"`
	SecretIDFile    string        `yaml:"secret_id_file" help:"file with the secret id, read at each login, for login: approle"`
	SecretIDWrapped bool          `yaml:"secret_id_wrapped" help:"secret_id_file has a wrapping token, which is unwrapped once; then the file is removed"`
	JWTFile         string        `yaml:"jwt_file" help:"file with the JWT, read at each login, for login: kubernetes (default: the pod's), jwt"`
	CertFile        string        `yaml:"cert_file" help:"for login: certificate, PEM file with the client certificate, read at each login"`
	KeyFile         string        `yaml:"key_file" help:"for login: certificate, PEM file with the private key"`
	TokenFile       string        `yaml:"token_file" help:"for login: token_file, file with the token, read at each login"`
}

// files are the names of files in the section.
func (v *Vault) files() []*string {
	return []*string{&v.CAFile, &v.SecretIDFile, &v.JWTFile, &v.CertFile, &v.KeyFile, &v.TokenFile}
}

// loginKeys says which keys go with which login, and which of them it needs.
var loginKeys = map[string]struct{ takes, needs []string }{
	"approle":     {[]string{"mount", "role_id", "secret_id_file", "secret_id_wrapped"}, []string{"role_id", "secret_id_file"}},
	"kubernetes":  {[]string{"mount", "role", "jwt_file"}, []string{"role"}},
	"jwt":         {[]string{"mount", "role", "jwt_file"}, []string{"role", "jwt_file"}},
	"certificate": {[]string{"mount", "role", "cert_file", "key_file"}, []string{"cert_file", "key_file"}},
	"token_file":  {[]string{"token_file"}, []string{"token_file"}},
}

// set lists the keys of the login that are set, in order.
func (v *Vault) set() (names []string) {
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"mount", v.Mount != ""}, {"role", v.Role != ""}, {"role_id", v.RoleID != ""},
		{"secret_id_file", v.SecretIDFile != ""}, {"secret_id_wrapped", v.SecretIDWrapped}, {"jwt_file", v.JWTFile != ""},
		{"cert_file", v.CertFile != ""}, {"key_file", v.KeyFile != ""}, {"token_file", v.TokenFile != ""},
	} {
		if key.set {
			names = append(names, key.name)
		}
	}
	return names
}

func (c *Config) checkVault() error {
	v := &c.doc.Vault
	if v.Address == "" {
		if *v != Default().Vault {
			return &KeyError{"vault.address", "required where anything else of vault is set"}
		}
		return nil
	}
	keys, known := loginKeys[v.Login]
	if !known {
		return &KeyError{"vault.login", "approle, kubernetes, jwt, certificate or token_file"}
	}
	set := v.set()
	for _, name := range set {
		if !slices.Contains(keys.takes, name) {
			return &KeyError{"vault." + name, "doesn't go with login: " + v.Login}
		}
	}
	for _, name := range keys.needs {
		if !slices.Contains(set, name) {
			return &KeyError{"vault." + name, "required with login: " + v.Login}
		}
	}
	if err := within("vault.timeout", v.Timeout, vault.MinTimeout, vault.MaxTimeout); err != nil {
		return err
	}
	var wrong *vault.ConfigError
	if err := c.vault().Validate(); errors.As(err, &wrong) {
		return &KeyError{"vault." + wrong.Field, wrong.Msg}
	}
	return nil
}

// vault is the section as the client takes it.
func (c *Config) vault() vault.Config {
	v := c.doc.Vault
	config := vault.Config{Address: v.Address, CAFile: v.CAFile, ServerName: v.ServerName, Namespace: v.Namespace, Timeout: v.Timeout}
	switch mount := strings.Trim(v.Mount, "/"); v.Login {
	case "approle":
		config.Login = vault.AppRole{Mount: mount, RoleID: v.RoleID, SecretIDFile: v.SecretIDFile, Wrapped: v.SecretIDWrapped}
	case "kubernetes":
		config.Login = vault.Kubernetes{Mount: mount, Role: v.Role, JWTFile: v.JWTFile}
	case "jwt":
		config.Login = vault.JWT{Mount: mount, Role: v.Role, JWTFile: v.JWTFile}
	case "certificate":
		config.Login = vault.Certificate{Mount: mount, Role: v.Role, CertFile: v.CertFile, KeyFile: v.KeyFile}
	case "token_file":
		config.Login = vault.TokenFile{Path: v.TokenFile}
	}
	return config
}
