package storetest

import (
	"testing"

	"github.com/tenantbroker/tenantbroker/store"
)

// Empty deletes every row of a table. A test does so to see that a check which
// reads another table refuses by itself.
func Empty(t testing.TB, st store.Store, table store.Table) {
	t.Helper()
	deleted := 0
	err := st.Update(t.Context(), func(tx store.Tx) error {
		deleted = 0
		var rows []store.Ref
		for row, err := range tx.Scan(table, "", "") {
			if err != nil {
				return err
			}
			rows = append(rows, store.Ref{Table: table, Key: row.Key, Version: row.Version})
		}
		for _, row := range rows {
			if err := tx.Delete(row.Table, row.Key, row.Version); err != nil {
				return err
			}
		}
		deleted = len(rows)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if deleted == 0 {
		t.Fatalf("the table %s is empty already", table)
	}
}
