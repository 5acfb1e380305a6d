package kinds

import "strconv"

// VersionField is the field of a value that this package writes with the number
// of its version, as a text: whoever hands the value out can tell which it is.
const VersionField = versionField

// ParseVersion reads what is in that field; 0 if it is none.
func ParseVersion(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0
	}
	return n
}
