package registry

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Limits of what an operator may declare. Text is counted in characters,
// expressions and documents in bytes.
const (
	MaxDisplayName = 200  // a tenant's display name, an account's owner
	MaxDescription = 1000 // free text of accounts and audiences
	MaxReason      = 500  // why a change was made
	MaxExpression  = 2048 // one CEL expression

	MaxLabels      = 32 // of one tenant
	MaxLabelLength = 63 // of a label's key, and of its value
	MaxGrantLabels = 8  // that one grant asks for

	MaxCredentials      = 20  // of one account
	MaxKeyIDLength      = 128 // `kid` of a registered key, bytes
	MaxPublicKeySize    = 8 << 10
	MaxSubjectLength    = 512 // `sub` of a platform credential, bytes
	MaxTenantsPerGrant  = 1000
	MaxOpenGrants       = 64 // per account and audience, that don't name their tenants
	MaxListedGrants     = 64 // per account, audience and tenant
	MaxFanOutTenants    = 1000
	MinFanOutWindow     = time.Minute
	MaxFanOutWindow     = 24 * time.Hour
	MaxAnyTenant        = 30 * 24 * time.Hour
	MaxTenantCascade    = 1000 // grants that the deletion of one tenant may change
	MaxURLLength        = 1024 // of an issuer, and of where its keys are, bytes
	MaxIssuers          = 1000 // trusted issuers: the keys of each are held in memory
	MaxAllowedCIDRs     = 32
	MaxCABundleSize     = 64 << 10
	MaxStaticJWKSSize   = 64 << 10
	MaxPage             = 500 // objects in one answer
	DefaultPage         = 100
	maxListedTenants    = 20_000 // tenant names in one page of grants
	maxVisited          = 10_000 // rows looked at for one page
	maxOptimisticTries  = 3
	defaultCacheEntries = 1 << 16
)

// endOfTime bounds every date: later ones have no JSON form.
var endOfTime = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// checkText holds free text to at most limit characters of valid UTF-8,
// without control characters, line breaks, or the marks that reverse the
// direction of what follows: operators read these texts in terminals. What is
// said must be visible.
func checkText(field, s string, limit int, required bool) error {
	switch {
	case required && s == "":
		return invalid(field, "is required")
	case len(s) > utf8.UTFMax*limit || utf8.RuneCountInString(s) > limit:
		return invalid(field, "at most %d characters", limit)
	case !utf8.ValidString(s):
		return invalid(field, "not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return invalid(field, "control characters are not allowed")
		}
	}
	if s != "" && !visible(s) {
		return invalid(field, "has nothing that can be seen")
	}
	return nil
}

// brailleBlank is a symbol that looks like a space.
const brailleBlank = '\u2800'

// visible reports whether a text shows something: a letter, digit, punctuation
// mark or symbol that is not blank.
func visible(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool {
		return unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S) &&
			!unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) && r != brailleBlank
	})
}

// checkLabels holds labels to at most limit of them; keys to letters, digits
// and _ . / - after the first character, values to the same without the slash.
func checkLabels(field string, labels map[string]string, limit int) error {
	if len(labels) > limit {
		return invalid(field, "%d labels, at most %d", len(labels), limit)
	}
	for key, value := range labels {
		if !labelText(key, "_./-") {
			return invalid(field, "a key is 1 to %d letters, digits and, after the first, _ . / -", MaxLabelLength)
		}
		if !labelText(value, "_.-") {
			return invalid(field, "a value is 1 to %d letters, digits and, after the first, _ . -", MaxLabelLength)
		}
	}
	return nil
}

func labelText(s, punctuation string) bool {
	if s == "" || len(s) > MaxLabelLength {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && strings.IndexByte(punctuation, c) >= 0:
		default:
			return false
		}
	}
	return true
}

// checkEnd holds an end date, where there is one, to the future.
func checkEnd(field string, t, now time.Time) error {
	switch {
	case t.IsZero():
		return nil
	case !t.After(now):
		return invalid(field, "is over already")
	case t.After(endOfTime):
		return invalid(field, "too far ahead")
	}
	return nil
}

// instant is the form in which every date is kept: UTC, milliseconds.
func instant(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}

// checkNewID refuses the reserved name for tenants and accounts alike: an
// account called "system" would read as the broker itself in every record.
func checkNewID(id string) error {
	if id == "" {
		return invalid("id", "is required")
	}
	if strings.EqualFold(id, credential.System.String()) {
		return ErrReserved
	}
	return nil
}
