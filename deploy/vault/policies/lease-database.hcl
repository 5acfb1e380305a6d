# Tenants' short-lived database users. Each lease has a role of its own, whose
# name begins with tb_, and with what is its broker's alone where --issuer says
# which. The connection must say allowed_roles='tb_*', and Vault must log in there
# as a user that can call the functions of deploy/postgres and nothing else.
path "@database@/roles/@leases@*" {
  capabilities = ["create", "update", "delete"]
  allowed_parameters = {
    "db_name"               = [@connections@]
    "creation_statements"   = []
    "renew_statements"      = []
    "revocation_statements" = []
    "default_ttl"           = []
    "max_ttl"               = []
  }
}

# Roles that were left behind are found by their names.
path "@database@/roles" {
  capabilities = ["list"]
}

path "@database@/creds/@leases@*" {
  capabilities = ["read"]
}

# What a role's leases are. Vault asks for sudo to list any.
path "sys/leases/lookup/@database@/creds/@leases@*" {
  capabilities = ["list", "sudo"]
}

# By id, which nobody can guess.
path "sys/leases/lookup" {
  capabilities = ["update"]
}

path "sys/leases/renew" {
  capabilities = ["update"]
}

path "sys/leases/revoke" {
  capabilities = ["update"]
}
