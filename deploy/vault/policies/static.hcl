# One database static role that the broker rotates.
path "@database@/static-roles/@role@" {
  capabilities = ["read"]
}

path "@database@/static-creds/@role@" {
  capabilities = ["read"]
}

path "@database@/rotate-role/@role@" {
  capabilities = ["update"]
}
