package vault

import (
	"slices"
	"strings"
)

// kinds are the sentinels whose text an error of this package begins with.
var kinds = []error{
	ErrUnavailable, ErrSealed, ErrStandby, ErrRateLimited, ErrLoggedOut, ErrUncertain, ErrForbidden, ErrNotFound, ErrRefused,
	ErrConflict, ErrAnswer, ErrConfig, ErrUnwrapped,
}

// Outline is a text for people who may know that Vault failed, and not where it
// is and how it is laid out: of an error of Vault within it the kind is left,
// and nothing of what comes after.
func Outline(text string) string {
	at := strings.Index(text, "vault: ")
	if at < 0 {
		return text
	}
	i := slices.IndexFunc(kinds, func(kind error) bool { return strings.HasPrefix(text[at:], kind.Error()) })
	if i < 0 {
		return text[:at] + "vault: failed"
	}
	return text[:at] + kinds[i].Error()
}
