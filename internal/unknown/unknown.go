// Package unknown makes ids that nobody has, of the shape of one that somebody
// has: what a service answers for such an id is what it has to answer for another
// tenant's.
package unknown

import (
	"crypto/rand"
	"math"
	"math/big"
	"regexp"
	"strings"
)

// Certain is from how many bits on that were drawn anew an id is certainly
// nobody's, whatever ids there are: what changes something may be tried with it.
const Certain = 64

// random is from how many bits on an id with letters in it counts as drawn by
// chance, not given out one after the other.
const random = 40

// ID returns an id like the given one, that nobody has. One that was drawn by
// chance is drawn anew: digits for digits, letters for letters of the same case,
// hexadecimal ones where it has no others, zeros and separators where they are; a
// prefix such as "ord_" stays, and what makes a UUID one. In one that was given out
// in order, such as 1042, inv_1042, 2024-00017 and shoes-1042, the last number
// becomes one beyond what is given out: within what 32 bits hold, or 64 where it has
// 10 to 19 digits.
func ID(like string) string {
	s := shapeOf(like)
	if s.counted() {
		start, end := s.number()
		return like[:start] + beyond(like[start:end]) + like[end:]
	}
	made := []byte(like)
	for i := range made {
		if from := s.from(i); from != "" {
			made[i] = from[below(int64(len(from)))]
		}
	}
	return string(made)
}

// Bits is how many bits of an id like the given one ID draws anew.
func Bits(like string) int {
	s := shapeOf(like)
	if s.counted() {
		start, end := s.number()
		_, room := ranges(like[start:end])
		return int(math.Log2(room))
	}
	return int(s.bits)
}

// Counted reports whether an id may have been given out in order: then somebody
// else may have his own under the same, where each tenant's are numbered.
func Counted(like string) bool { return shapeOf(like).counted() }

const small = "abcdefghijklmnopqrstuvwxyz"

var uuid = regexp.MustCompile(`(?i)\A[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\z`)

// shape is what an id is made of.
type shape struct {
	like    string
	keep    int // length of the prefix that stays
	uuid    bool
	digits  string // from which they are drawn
	letters string // small ones
	bits    float64
	words   bool // there are letters
}

func shapeOf(like string) *shape {
	s := &shape{like: like, digits: "123456789", letters: small, uuid: uuid.MatchString(like)}
	if at := strings.IndexAny(like, "_:"); at <= 8 && strings.Trim(like[:max(at, 0)], small) == "" {
		s.keep = at + 1
	}
	rest := strings.ToLower(like[s.keep:])
	s.words = strings.ContainsAny(rest, small)
	switch {
	case strings.Trim(rest, "0123456789abcdef-") == "":
		s.letters = small[:6]
	case !strings.ContainsAny(rest, "ilou"): // Crockford's alphabet has none of these
		s.letters = "abcdefghjkmnpqrstvwxyz"
	}
	if s.words && s.letters != small[:6] && !strings.ContainsAny(rest, "0189") { // nor RFC 4648's of these
		s.digits = "234567"
	}
	for i := range like {
		if from := s.from(i); from != "" {
			s.bits += math.Log2(float64(len(from)))
		}
	}
	return s
}

// from is what may stand in the place of a byte; "": it stays.
func (s *shape) from(i int) string {
	c := s.like[i]
	switch {
	case i < s.keep, s.uuid && (i == 14 || i == 19): // version and variant (RFC 9562 section 4)
		return ""
	case c >= '1' && c <= '9':
		return s.digits
	case c >= 'a' && c <= 'z':
		return s.letters
	case c >= 'A' && c <= 'Z':
		return strings.ToUpper(s.letters)
	}
	return ""
}

// counted: too little to be drawn by chance, or words and a number, by which alone
// some services go: /shoes-1042, /1042-shoes.
func (s *shape) counted() bool {
	if s.bits < random || s.bits < Certain && !s.words {
		return true
	}
	start, end := s.number()
	apart := s.apart(start, end) && end-start < 20
	return !s.uuid && s.words && start < end && (apart || !mixed.MatchString(s.like)) && s.turns() < manyTurns
}

// manyTurns are more than words have: what is drawn from small letters, capitals and
// digits has nine in 22 characters, and fewer than these in one of 700.
const manyTurns = 3

// turns is how often a capital comes after a small letter, or a letter and a digit
// are side by side.
func (s *shape) turns() (n int) {
	const small, capital, digit = 1, 2, 3
	before := 0
	for _, c := range []byte(s.like[s.keep:]) {
		is := 0
		switch {
		case c >= 'a' && c <= 'z':
			is = small
		case c >= 'A' && c <= 'Z':
			is = capital
		case c >= '0' && c <= '9':
			is = digit
		}
		if before != 0 && is != 0 && before != is && (before != capital || is != small) {
			n++
		}
		before = is
	}
	return n
}

// mixed is how digits and letters are where they are drawn together.
var mixed = regexp.MustCompile(`[0-9][A-Za-z]`)

var number = regexp.MustCompile(`[0-9]+`)

// number is where the last number of an id is that stands apart, or else the last
// one; at its end, where it has none.
func (s *shape) number() (start, end int) {
	start, end = len(s.like), len(s.like)
	for _, at := range number.FindAllStringIndex(s.like, -1) {
		if s.apart(at[0], at[1]) || !s.apart(start, end) {
			start, end = at[0], at[1]
		}
	}
	return start, end
}

// apart reports whether no letter is before or behind; in a UUID that means nothing.
func (s *shape) apart(start, end int) bool {
	letter := func(i int) bool { return i >= 0 && i < len(s.like) && strings.IndexByte(small, s.like[i]|0x20) >= 0 }
	return !s.uuid && start < end && !letter(start-1) && !letter(end)
}

// beyond is a number that is not given out, where the given one is; it keeps its
// leading zeros as far as its length does.
func beyond(number string) string {
	least, room := ranges(number)
	n, _ := new(big.Float).SetFloat64(room).Int(nil)
	made := n.Add(least, draw(n)).String()
	return strings.Repeat("0", max(0, len(number)-len(made))) + made
}

// ranges are the least of the numbers that take a number's place, and how many
// there are.
func ranges(number string) (least *big.Int, room float64) {
	switch n := len(strings.TrimLeft(number, "0")); {
	case n < 10:
		return big.NewInt(2_000_000_000), 147e6
	case n < 20:
		return big.NewInt(9_100_000_000_000_000_000), 1e17
	default:
		ten := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n-1)), nil)
		return ten.Mul(ten, big.NewInt(9)), math.Pow10(n - 1)
	}
}

func below(n int64) int64 { return draw(big.NewInt(n)).Int64() }

func draw(n *big.Int) *big.Int {
	i, _ := rand.Int(rand.Reader, n) // never fails (crypto/rand, Go 1.24)
	return i
}
