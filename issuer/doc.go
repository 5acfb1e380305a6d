// Package issuer turns what a workload can prove about itself into a token for
// exactly one tenant: it authenticates the workload, finds the one grant that
// covers the whole request, commits the decision together with its audit
// record, and only then signs.
//
// It refuses by default. No grant, an unknown or suspended tenant, a disabled
// account, a condition that is false or fails, a store that can't write: each
// is a denial, and what the caller is told never says which (I4). What it was
// is in the audit record.
package issuer
