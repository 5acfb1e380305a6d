// Package lease gives workloads what belongs to their token's tenant for as
// long as a grant says: a short-lived database user, made by Vault, whose rows
// are the tenant's, or the values under the tenant's path in Vault's KV engine.
//
// A lease is a row in the store before Vault is asked for anything, and its
// audit record is durable before anything is answered (I5). It ends with what
// it rests on, and has ended when Vault has been seen without it.
//
// It refuses to give a lease to a token whose grant, account or tenant has
// changed its standing, to let one outlive its grant, and to forget one that
// could still be alive.
package lease
