// Package unknown makes ids that nobody has, of the shape of one that somebody
// has: what a service answers for such an id is what it has to answer for another
// tenant's.
package unknown

import (
	"crypto/rand"
	"math/big"
	"strconv"
	"strings"
)

// ID returns an id like the given one: digits for digits, letters for letters of
// the same case, hexadecimal ones where it has no others, zeros and separators
// where they are. A prefix such as "ord_" stays. A number of up to nine digits
// becomes one beyond what is given out, within what 32 bits hold.
func ID(like string) string {
	if like != "" && strings.Trim(like, "0123456789") == "" && len(like) < 10 {
		return strconv.FormatInt(2_000_000_000+random(147_000_000), 10)
	}
	keep := 0
	if at := strings.IndexAny(like, "_:"); at <= 8 && strings.Trim(like[:max(at, 0)], small) == "" {
		keep = at + 1
	}
	hex := strings.Trim(like[keep:], "0123456789abcdef-") == ""
	for range 8 { // a short one may come out as it was
		if made := like[:keep] + strings.Map(func(c rune) rune { return another(c, hex) }, like[keep:]); made != like {
			return made
		}
	}
	return like + "0" // nothing in it could be another
}

const small = "abcdefghijklmnopqrstuvwxyz"

func another(c rune, hex bool) rune {
	pick := func(from string) rune { return rune(from[random(int64(len(from)))]) }
	switch {
	case c >= '1' && c <= '9':
		return pick("123456789")
	case c >= 'a' && c <= 'z' && hex:
		return pick(small[:6])
	case c >= 'a' && c <= 'z':
		return pick(small)
	case c >= 'A' && c <= 'Z':
		return pick(strings.ToUpper(small))
	}
	return c
}

func random(n int64) int64 {
	i, _ := rand.Int(rand.Reader, big.NewInt(n)) // never fails (crypto/rand, Go 1.24)
	return i.Int64()
}
