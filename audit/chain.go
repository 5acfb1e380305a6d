package audit

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
)

// MaxWriterLength is the longest name of a writer, in bytes.
const MaxWriterLength = 64

// Chain names one chain of records: those of one tenant (zero: the broker
// itself) written by one writer, a broker replica.
type Chain struct {
	Tenant credential.Tenant
	Writer string
}

// ChainFor returns the chain that a record about tenant belongs to. The
// reserved tenant is the broker itself, so its records share the broker's chain.
func ChainFor(tenant credential.Tenant, writer string) Chain {
	if tenant.IsSystem() {
		tenant = credential.Tenant{}
	}
	return Chain{Tenant: tenant, Writer: writer}
}

// CheckWriter holds the name of a writer to the grammar of a tenant id.
func CheckWriter(writer string) error {
	if _, err := credential.ParseTenant(writer); err != nil && !strings.EqualFold(writer, credential.System.String()) {
		return fmt.Errorf("audit: writer %q: 1 to %d of letters, digits, _ . -", writer, MaxWriterLength)
	}
	return nil
}

// String returns "tenant@writer", or "@writer" for the broker's own chain.
// Neither part can hold an @, so no two chains share a name.
func (c Chain) String() string { return c.Tenant.String() + "@" + c.Writer }

// ParseChain reads the form of String.
func ParseChain(s string) (Chain, error) {
	name, writer, found := strings.Cut(s, "@")
	if !found {
		return Chain{}, errors.New(`audit: a chain is named "tenant@writer"`)
	}
	if err := CheckWriter(writer); err != nil {
		return Chain{}, err
	}
	if name == "" {
		return Chain{Writer: writer}, nil
	}
	tenant, err := credential.ParseTenant(name)
	if err != nil {
		return Chain{}, fmt.Errorf("audit: chain: %w", err)
	}
	if tenant.IsSystem() {
		return Chain{}, errors.New(`audit: the broker's own chain is named "@writer"`)
	}
	return Chain{Tenant: tenant, Writer: writer}, nil
}

// Genesis is what the first record of the chain holds as its predecessor: it
// ties the records to this chain, so that none can be moved to another.
func (c Chain) Genesis() [32]byte {
	return sha256.Sum256([]byte("tenantbroker audit chain 1\x00" + c.String()))
}

// Hash is what the next record of the chain holds as its predecessor: the
// SHA-256 of the line as it was written, without its end.
func Hash(line []byte) [32]byte { return sha256.Sum256(line) }
