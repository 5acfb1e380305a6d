package pgguard

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// Whatever a table is called, a row that guard's policies refuse is seen, one that
// another policy refuses is not, and neither is any other error.
func FuzzRefusedRow(f *testing.F) {
	f.Add("orders", "late", "permission denied for table orders", "42501")
	f.Add("or\"ders\n", "tenantguard_", "new row", "23505")
	f.Fuzz(func(t *testing.T, table, policy, text, code string) {
		for _, names := range []string{"", ` "tenantguard"`, ` "tenantguard_only"`, ` "tenantguard_only" (USING expression)`} {
			e := &pgconn.PgError{Code: denied, Message: fmt.Sprintf(`new row violates row-level security policy%s for table "%s"`, names, table)}
			got, is := refusedRow(fmt.Errorf("save: %w", e))
			if !strings.Contains(table, `" for table "`) && (!is || got != table) {
				t.Errorf("%s: %q, %t", e.Message, got, is)
			}
		}
		if plain := !strings.ContainsAny(policy+table, `"`) && policy != "" && policy != "tenantguard" && policy != "tenantguard_only"; plain {
			e := &pgconn.PgError{Code: denied, Routine: enforcer, Message: fmt.Sprintf(`new row violates row-level security policy "%s" for table "%s"`, policy, table)}
			if _, is := refusedRow(e); is {
				t.Errorf("%s is a crossing", e.Message)
			}
		}
		e := &pgconn.PgError{Code: code, Message: text, Routine: "aclcheck_error"}
		if _, is := refusedRow(e); is && (code != denied || !strings.Contains(text, "row-level security policy")) {
			t.Errorf("%s %s is a crossing", code, text)
		}
	})
}
