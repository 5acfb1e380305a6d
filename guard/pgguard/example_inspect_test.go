package pgguard_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// A migration's test asks what the database leaves open to the service's role.
func ExampleInspect() {
	ctx := context.Background()
	db, err := pgx.Connect(ctx, "service=shop")
	if err != nil {
		return
	}
	found, err := pgguard.Inspect(ctx, db, pgguard.InspectOptions{Roles: []string{"shop_app"}})
	if err != nil {
		return
	}
	for _, f := range found.Findings {
		if f.Severity == pgguard.SeverityError {
			fmt.Println(f.Kind, f.Object, f.What, f.Next)
		}
	}
}
