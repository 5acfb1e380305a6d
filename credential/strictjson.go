package credential

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of a strict JSON document that is a token's header or payload.
const (
	MaxJSONDepth   = 16   // nested objects and arrays, the outermost counted
	MaxJSONMembers = 512  // members in the whole document
	MaxJSONValues  = 4096 // values in the whole document, members' included
	MaxJSONNumber  = 64   // characters of a number in a token, which a double must hold too
)

// JSONLimits bound a strict JSON document of another kind. Siblings are
// compared in pairs, so Members costs its square at worst.
type JSONLimits struct {
	Depth, Members, Values int
	// Number is how many characters one may have, which a double must hold then: of
	// others readers make an error, infinity or something else (RFC 8259 section 6).
	// 0: whatever the grammar allows.
	Number int
}

var (
	documentLimits = JSONLimits{Depth: MaxJSONDepth, Members: MaxJSONMembers, Values: MaxJSONValues}
	tokenLimits    = JSONLimits{Depth: MaxJSONDepth, Members: MaxJSONMembers, Values: MaxJSONValues, Number: MaxJSONNumber}
)

// JSONKind is the type of a JSON value.
type JSONKind byte

// The kinds of JSON value.
const (
	JSONString JSONKind = iota + 1
	JSONNumber
	JSONObject
	JSONArray
	JSONBool
	JSONNull
)

// JSONMember is one member of an object: its name after unescaping and the
// bytes of its value as they stood.
type JSONMember struct {
	Name  []byte
	Value []byte
	Kind  JSONKind
}

// ParseObject reads a document that is one JSON object (RFC 8259) and returns
// its top-level members in order. It is stricter than encoding/json: invalid
// UTF-8, a lone surrogate escape, and two members of one object whose names are
// equal after unescaping, at any depth, are errors; so is anything over the
// limits above but that of numbers, which tokens alone have. Members alias data,
// which must not change after.
//
// Every error wraps ErrMalformed.
func ParseObject(data []byte) ([]JSONMember, error) {
	return ParseObjectWithin(data, documentLimits)
}

// ParseObjectWithin is ParseObject with limits of the caller's.
func ParseObjectWithin(data []byte, limits JSONLimits) ([]JSONMember, error) {
	s := newScanner(data, limits)
	defer s.release()
	members, err := s.document()
	return slices.Clone(members), err
}

// JSONText returns the text of a string value that ParseObject has checked.
func (m JSONMember) JSONText() (string, error) {
	if m.Kind != JSONString {
		return "", fmt.Errorf("%w: %q is not a string", ErrClaim, m.Name)
	}
	return string(unescape(m.Value[1 : len(m.Value)-1])), nil
}

// Elements returns the elements of an array value that ParseObject has
// checked, in order. They have no names.
func (m JSONMember) Elements() ([]JSONMember, error) {
	if m.Kind != JSONArray {
		return nil, fmt.Errorf("%w: not an array", ErrClaim)
	}
	// The value was within somebody's limits already; its length bounds it here.
	n := len(m.Value)
	s := newScanner(m.Value, JSONLimits{Depth: n + 1, Members: n, Values: n})
	defer s.release()
	var elements []JSONMember
	err := s.array(2, func(e JSONMember) { elements = append(elements, e) })
	return elements, err
}

// scanner reads one document. Scanners are used again, so that a token costs no
// lists of its own.
type scanner struct {
	data    []byte
	limits  JSONLimits
	at      int
	names   [][]byte     // of all open objects
	top     []JSONMember // of the outermost
	members int
	values  int
}

// keptMembers is how long a list of a scanner that is kept may be.
const keptMembers = 64

var scanners = sync.Pool{New: func() any {
	return &scanner{names: make([][]byte, 0, keptMembers/2), top: make([]JSONMember, 0, keptMembers/2)}
}}

func newScanner(data []byte, limits JSONLimits) *scanner {
	s, _ := scanners.Get().(*scanner)
	s.data, s.limits = data, limits
	return s
}

// release gives the scanner back, with nothing of the document left in it.
func (s *scanner) release() {
	if cap(s.names) > keptMembers || cap(s.top) > keptMembers {
		return
	}
	clear(s.names[:cap(s.names)])
	clear(s.top[:cap(s.top)])
	*s = scanner{names: s.names[:0], top: s.top[:0]}
	scanners.Put(s)
}

// document reads all of data, one object, and returns its members; they are
// valid until release.
func (s *scanner) document() ([]JSONMember, error) {
	if !utf8.Valid(s.data) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrMalformed)
	}
	s.space()
	if s.peek() != '{' {
		return nil, s.fail("not an object")
	}
	if err := s.object(1); err != nil {
		return nil, err
	}
	s.space()
	if s.at != len(s.data) {
		return nil, s.fail("something after the object")
	}
	return s.top, nil
}

func (s *scanner) fail(what string) error {
	return fmt.Errorf("%w: JSON: %s at byte %d", ErrMalformed, what, s.at)
}

func (s *scanner) peek() byte {
	if s.at < len(s.data) {
		return s.data[s.at]
	}
	return 0
}

func (s *scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// object reads from '{' to its '}'; the outermost object's members are kept.
func (s *scanner) object(depth int) error {
	if depth > s.limits.Depth {
		return s.fail("nested too deep")
	}
	mine := len(s.names) // names of this object start here
	s.at++
	s.space()
	if s.peek() == '}' {
		s.at++
		return nil
	}
	for {
		name, err := s.name(s.names[mine:])
		if err != nil {
			return err
		}
		s.names = append(s.names, name)
		from := s.at
		kind, err := s.value(depth)
		if err != nil {
			return err
		}
		if depth == 1 {
			s.top = append(s.top, JSONMember{Name: name, Value: s.data[from:s.at], Kind: kind})
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
			s.space()
		case '}':
			s.at++
			s.names = s.names[:mine]
			return nil
		default:
			return s.fail("expected , or }")
		}
	}
}

// name reads a member's name and the colon behind it; seen are its siblings'.
func (s *scanner) name(seen [][]byte) ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.fail("expected a member name")
	}
	raw, err := s.text()
	if err != nil {
		return nil, err
	}
	if s.members++; s.members > s.limits.Members {
		return nil, s.fail("too many members")
	}
	name := unescape(raw)
	for _, other := range seen {
		if bytes.Equal(name, other) {
			return nil, s.fail("duplicate member name")
		}
	}
	s.space()
	if s.peek() != ':' {
		return nil, s.fail("expected :")
	}
	s.at++
	s.space()
	return name, nil
}

func (s *scanner) value(depth int) (JSONKind, error) {
	if s.values++; s.values > s.limits.Values {
		return 0, s.fail("too many values")
	}
	switch c := s.peek(); {
	case c == '"':
		_, err := s.text()
		return JSONString, err
	case c == '{':
		return JSONObject, s.object(depth + 1)
	case c == '[':
		return JSONArray, s.array(depth+1, nil)
	case c == '-' || '0' <= c && c <= '9':
		return JSONNumber, s.number()
	case c == 't':
		return JSONBool, s.literal("true")
	case c == 'f':
		return JSONBool, s.literal("false")
	case c == 'n':
		return JSONNull, s.literal("null")
	}
	return 0, s.fail("expected a value")
}

// array reads from '[' to its ']'; each, when not nil, is given the elements.
func (s *scanner) array(depth int, each func(JSONMember)) error {
	if depth > s.limits.Depth {
		return s.fail("nested too deep")
	}
	s.at++
	s.space()
	if s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		from := s.at
		kind, err := s.value(depth)
		if err != nil {
			return err
		}
		if each != nil {
			each(JSONMember{Value: s.data[from:s.at], Kind: kind})
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
			s.space()
		case ']':
			s.at++
			return nil
		default:
			return s.fail("expected , or ]")
		}
	}
}

func (s *scanner) literal(word string) error {
	if !bytes.HasPrefix(s.data[s.at:], []byte(word)) {
		return s.fail("expected a value")
	}
	s.at += len(word)
	return nil
}

// number reads -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?
func (s *scanner) number() error {
	from, exponent := s.at, false
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if !s.digits() {
		return s.fail("bad number")
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return s.fail("bad number")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		exponent = true
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		if !s.digits() {
			return s.fail("bad number")
		}
	}
	if s.limits.Number == 0 {
		return nil
	}
	if s.at-from > s.limits.Number {
		return s.fail("a number is too long")
	}
	if exponent { // without one it is too short to be out of range
		if _, err := strconv.ParseFloat(string(s.data[from:s.at]), 64); err != nil {
			return s.fail("a number is out of range")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	from := s.at
	for '0' <= s.peek() && s.peek() <= '9' {
		s.at++
	}
	return s.at > from
}

// text reads a string from quote to quote and returns what is between.
func (s *scanner) text() ([]byte, error) {
	s.at++
	from := s.at
	for s.at < len(s.data) {
		switch c := s.data[s.at]; {
		case c == '"':
			raw := s.data[from:s.at]
			s.at++
			return raw, nil
		case c < ' ':
			return nil, s.fail("control character in a string")
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
		default:
			s.at++
		}
	}
	return nil, s.fail("unterminated string")
}

// escape checks one escape sequence; a surrogate must come as a pair.
func (s *scanner) escape() error {
	s.at++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at++
		return nil
	case 'u':
	default:
		return s.fail("bad escape")
	}
	r, ok := hex4(s.data[s.at+1:])
	if !ok {
		return s.fail("bad escape")
	}
	s.at += 5
	if !utf16.IsSurrogate(r) {
		return nil
	}
	rest := s.data[s.at:]
	if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
		return s.fail("lone surrogate")
	}
	low, ok := hex4(rest[2:])
	if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
		return s.fail("lone surrogate")
	}
	s.at += 6
	return nil
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	return rune(n), err == nil
}

// unescape returns the bytes that a checked string stands for; without an
// escape it is the string itself.
func unescape(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				low, _ := hex4(raw[i+3:])
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default: // " \ /
			out = append(out, raw[i])
		}
	}
	return out
}
