package api

import (
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// outlined is a text about what failed, as the caller may see it: where Vault is
// and how it is laid out is for operators of the whole broker.
func (c *call) outlined(text string) string {
	if c.by.Tenant.IsSystem() {
		return text
	}
	return vault.Outline(text)
}

// keyOutline is a key as an operator of one tenant sees it.
func keyOutline(k keys.KeyInfo) wire.Key {
	out := WireKey(k)
	if out.Problem != "" {
		out.Problem = "it can't be used at the moment" // why names the key in Vault
	}
	return out
}

func (c *call) leaseInfo(l lease.Info) wire.LeaseInfo {
	out := wireLeaseInfo(l)
	if out.Ending != nil {
		out.Ending.LastError = c.outlined(out.Ending.LastError)
	}
	return out
}

func (c *call) outlineLeases(l []wire.LeaseReport) {
	for i := range l {
		l[i].LastError = c.outlined(l[i].LastError)
	}
}
