// Package secrets holds tests of shared secrets on a running broker, with a real
// Vault and the broker's own tokens.
package secrets
