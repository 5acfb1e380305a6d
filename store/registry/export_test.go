package registry

import (
	"fmt"

	"github.com/tenantbroker/tenantbroker/store"
)

// derived are the tables that follow from the objects.
var derived = []store.Table{
	grantLists, grantTenants, grantsOpen, grantsAccount, grantsAudience, grantsTenant, grantsLabel, grantsOperator,
	accountsHome, accountKeys, subjects, conditions, audienceOwner, audienceHome, issuerURLs,
}

// CheckDerived compares every derived table with what the objects imply.
func CheckDerived(r store.Reader) error {
	want := map[string]string{}
	add := func(rows []indexRow) {
		for _, row := range rows {
			want[string(row.table)+"/"+row.key] = row.value
		}
	}
	for row, err := range r.Scan(accounts, "", "") {
		if err != nil {
			return err
		}
		a, err := decodeAccount(row)
		if err != nil {
			return err
		}
		add(a.index())
	}
	for row, err := range r.Scan(audiences, "", "") {
		if err != nil {
			return err
		}
		a, err := decodeAudience(row)
		if err != nil {
			return err
		}
		_, home, err := audienceAndHome(r, a.Name)
		if err != nil {
			return err
		}
		add(a.index(home))
	}
	for row, err := range r.Scan(issuers, "", "") {
		if err != nil {
			return err
		}
		i, err := decodeIssuer(row)
		if err != nil {
			return err
		}
		add(i.index())
	}
	for row, err := range r.Scan(grants, "", "") {
		if err != nil {
			return err
		}
		g, err := loadGrant(r, row.Key)
		if err != nil {
			return err
		}
		add(g.index())
	}
	have := 0
	for _, t := range derived {
		for row, err := range r.Scan(t, "", "") {
			if err != nil {
				return err
			}
			have++
			name := string(t) + "/" + row.Key
			if value, ok := want[name]; !ok || value != string(row.Value) {
				return fmt.Errorf("derived row %q = %q, implied %q (%t)", name, row.Value, value, ok)
			}
		}
	}
	if have != len(want) {
		return fmt.Errorf("%d derived rows, %d implied", have, len(want))
	}
	return nil
}

// CountRows counts the rows of all tables of the registry.
func CountRows(r store.Reader) (int, error) {
	n := 0
	for _, t := range append([]store.Table{tenants, accounts, audiences, grants, issuers, ids}, derived...) {
		for _, err := range r.Scan(t, "", "") {
			if err != nil {
				return 0, err
			}
			n++
		}
	}
	return n, nil
}

// MaxVisited and MaxListedTenants are the bounds of a page.
const (
	MaxVisited       = maxVisited
	MaxListedTenants = maxListedTenants
)
