// Package kinds is what a rotation does out there, for each kind of shared
// secret: values in Vault's KV engine, pairs of database users, the broker's own
// client secrets, and whatever a webhook looks after.
//
// A kind never keeps a value: it lies in Vault from the moment at which it is
// made, under a path of its own until it is proven. What a kind wrote it
// recognises by the rotation's nonce, and what it did not write it doesn't touch.
package kinds

import (
	"errors"
	"fmt"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// fromVault says what an error of Vault means for a step.
func fromVault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, vault.ErrUnavailable): // what is uncertain too
		return fmt.Errorf("%w: %w", secrets.ErrAway, err)
	case errors.Is(err, vault.ErrForbidden), errors.Is(err, vault.ErrRefused), errors.Is(err, vault.ErrConflict):
		return fmt.Errorf("%w: %w", secrets.ErrNotDone, err)
	}
	return err
}

// drift says what another has changed; nothing was done.
func drift(format string, args ...any) error {
	return fmt.Errorf("%w: %s", secrets.ErrDrift, fmt.Sprintf(format, args...))
}
