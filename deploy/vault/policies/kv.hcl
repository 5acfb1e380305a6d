# Shared secrets of the kind kv, and others whose value waits or lies in KV, below
# one folder. A new version is staged beside the value and removed from there
# with its metadata; old versions are destroyed.
path "@kv@/data/@folder@/*" {
  capabilities = ["create", "read", "update"]
}

path "@kv@/metadata/@folder@/*" {
  capabilities = ["read", "delete"]
}

path "@kv@/destroy/@folder@/*" {
  capabilities = ["update"]
}
