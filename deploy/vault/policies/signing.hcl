# Signing keys in Transit (signing.home: vault-transit), for one algorithm. The
# broker makes the key and its versions, reads public keys, and signs. It can't
# make a key exportable, allow a plaintext backup, delete it or import one.
path "@transit@/keys/@key@" {
  capabilities = ["read", "update"]
  allowed_parameters = {
    "type"                   = ["@type@"]
    "exportable"             = [false]
    "allow_plaintext_backup" = [false]
    "derived"                = [false]
  }
}

path "@transit@/keys/@key@/rotate" {
  capabilities = ["update"]
}

# Old versions stop signing, and verifying, when the last token has expired.
path "@transit@/keys/@key@/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "min_decryption_version" = []
    "min_encryption_version" = []
  }
}

path "@transit@/sign/@key@" {
  capabilities = ["update"]
}
