# The key-encryption key. The set-up makes it; the broker can neither read nor
# change it, and without "create" it makes none by encrypting with a wrong name.
path "@transit@/encrypt/@kek@" {
  capabilities = ["update"]
}

path "@transit@/decrypt/@kek@" {
  capabilities = ["update"]
}
