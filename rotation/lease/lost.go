package lease

import (
	"context"
	"errors"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// vaultLost is added to the reason on record when that was found before the time
// of a lease. Vault lost it, or somebody revoked it there.
const vaultLost = "; Vault knew it no more before its time"

// connection is Vault's name of the database that a lease's user is in; "" where
// that can't be told. Rows of before don't have it: then the target's, if it is
// what it was.
func (m *Manager) connection(l *row) string {
	if l.Connection != "" {
		return l.Connection
	}
	if target, known := m.targets.find(l.Of); known && (l.Made == "" || l.Made == target.mark()) {
		return target.Connection
	}
	return ""
}

// dropLost removes a user that Vault doesn't know, by a role whose way to make
// a user is to drop that one. The lease that Vault makes of it is of nobody.
func (m *Manager) dropLost(ctx context.Context, l *row) error {
	connection := m.connection(l)
	if connection == "" {
		return errors.New("the target is not in the configuration any more, or is another, so there is no connection to do it with")
	}
	err := m.vault.PutRole(ctx, l.Mount, l.Role, vault.Role{
		Database: connection, DefaultTTL: time.Minute, MaxTTL: time.Minute,
		CreationStatements:   []string{dropNamed(l.User)},
		RevocationStatements: []string{dropUser},
	})
	if err != nil {
		return err
	}
	m.at("role to drop a lost user")
	made, err := m.vault.Credentials(ctx, l.Mount, l.Role)
	if err != nil {
		return err
	}
	m.at("lost user dropped")
	return m.vault.Revoke(ctx, made.LeaseID)
}

// lostUnasked reports that a lease which Vault doesn't know was ended neither by
// this broker nor by its time, which is Vault's where the lease was shortened.
// Of what an earlier process did nothing is known.
func (m *Manager) lostUnasked(l *row) bool {
	_, asked := m.asked.Load(l.ID)
	kept := l.Kept
	if kept.IsZero() { // a row of before
		kept = l.ExpiresAt
	}
	return !asked && !l.Ends.Since.Before(m.since) && m.now().Before(kept)
}
