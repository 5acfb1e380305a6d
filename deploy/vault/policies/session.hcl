# The broker's own token: it looks at it, keeps it alive and ends it. Vault's
# policy "default", which allows more, is not attached.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
