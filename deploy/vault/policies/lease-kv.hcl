# Values that workloads lease: below each tenant's own folder, to read.
path "@kv@/data/@tenants@/+/*" {
  capabilities = ["read"]
}
