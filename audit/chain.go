package audit

import "github.com/tenantbroker/tenantbroker/credential"

// Chain names one chain of records: those of one tenant (zero: the broker
// itself) written by one writer, a broker replica.
type Chain struct {
	Tenant credential.Tenant
	Writer string
}
