package api

import (
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

func mustAudience(s string) credential.Audience { return credential.MustAudience(s) }

func mustAccount(s string) credential.AccountID { return credential.MustAccountID(s) }
