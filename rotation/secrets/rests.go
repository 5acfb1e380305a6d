package secrets

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// rests checks what the secret names and notes that it rests on it.
func (m *Manager) rests(c *registry.Change, old *Secret, next prepared) error {
	if next.checked.Sensitive {
		if err := c.May(registry.ActSensitiveSecret); err != nil {
			return err
		}
	}
	if !next.Shared {
		if _, err := c.Tenant("tenant", next.Tenant); err != nil {
			return err
		}
	}
	named := map[string][]credential.AccountID{"owner": {next.Owner}, "consumers": next.Consumers, "spec": next.checked.Accounts}
	for _, field := range []string{"owner", "consumers", "spec"} {
		for _, id := range named[field] {
			account, err := c.Account(field, id)
			if err != nil {
				return err
			}
			// An account of another tenant has no business with this one's.
			if !next.Shared && !account.Home.IsSystem() && account.Home != next.Tenant {
				return registry.Invalid(field, "an account of another tenant")
			}
			if next.Shared && field == "spec" && !account.Home.IsSystem() {
				return registry.Invalid(field, "an account of a tenant, in a secret of none")
			}
		}
	}
	for _, id := range next.checked.Lends {
		if err := c.MayLend("spec", id); err != nil {
			return err
		}
	}
	for _, id := range next.checked.Published {
		if next.Shared {
			break
		}
		if err := c.Confined("spec", id, next.Tenant); err != nil {
			return err
		}
	}
	if next.Pair != "" {
		pair, err := readSecret(c, next.Pair)
		if errors.Is(err, store.ErrNotFound) || (err == nil && pair.Home() != next.Home()) {
			return registry.Invalid("pair", "no such secret")
		}
		if err != nil {
			return err
		}
	}
	var had []registry.Use
	var claimed []string
	var paired string
	if old != nil {
		had, claimed, paired = old.uses(), old.Resources, old.Pair
	}
	if err := pairUp(c, next.ID, paired, next.Pair); err != nil {
		return err
	}
	if err := claim(c, next.ID, claimed, next.Resources); err != nil {
		return err
	}
	return c.Uses(next.ID, had, next.uses())
}

// claim takes what the kind changes out there for one secret alone.
func claim(tx store.Tx, id string, old, next []string) error {
	for _, r := range old {
		if slices.Contains(next, r) {
			continue
		}
		row, err := tx.Get(resourceTable, r)
		if err != nil {
			return err
		}
		if err := tx.Delete(resourceTable, r, row.Version); err != nil {
			return err
		}
	}
	for _, r := range next {
		if slices.Contains(old, r) {
			continue
		}
		_, err := tx.Put(resourceTable, r, []byte(id), 0)
		if errors.Is(err, store.ErrChanged) {
			return fmt.Errorf("%w: another shared secret rotates the same thing", registry.ErrExists)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// countKey is the row that says how many secrets are declared.
const countKey = "all"

// count counts a secret that comes or goes, in the commit in which it does. To
// read all rows each time would hold up every other commit. Where there is no
// count yet, or one that can't be read, the rows are counted.
func count(tx store.Tx, change int) error {
	n := 0
	row, err := tx.Get(countTable, countKey)
	if err == nil {
		err = decode(row, &n)
	}
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, ErrUnreadable) {
		n = 0
		for _, err := range tx.Scan(secretTable, "", "") {
			if err != nil {
				return err
			}
			n++
		}
		err = nil
	}
	if err != nil {
		return err
	}
	if n += change; n > MaxSecrets && change > 0 {
		return fmt.Errorf("%w: at most %d", ErrFull, MaxSecrets)
	}
	_, err = put(tx, countTable, countKey, n, row.Version)
	return err
}
