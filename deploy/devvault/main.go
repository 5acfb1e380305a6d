// Devvault is HashiCorp Vault, built from its published module, for machines
// on which no vault is installed. It is a module of its own, so that the broker
// does not carry Vault's dependencies. script/vault builds it once.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
