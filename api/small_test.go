package api

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

func mustAudience(s string) credential.Audience { return credential.MustAudience(s) }

func mustAccount(s string) credential.AccountID { return credential.MustAccountID(s) }

func prefixes(t *testing.T, all ...string) (out []netip.Prefix) {
	t.Helper()
	for _, s := range all {
		out = append(out, must[netip.Prefix](t)(netip.ParsePrefix(s)))
	}
	return out
}
