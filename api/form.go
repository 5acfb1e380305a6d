package api

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Limits of a form.
const (
	maxFormParams = 64                        // parameters in one form or query
	maxFormName   = 128                       // bytes of a name
	maxFormValue  = credential.MaxTokenLength // bytes of a value
)

// form holds the parameters of an application/x-www-form-urlencoded body or of
// a query, each at most once.
type form struct {
	params []formParam
}

type formParam struct{ name, value string }

// formError says what is wrong with a form. Only a name that the caller knows
// by itself may be shown: parameter is what the client sent.
type formError struct {
	parameter string // "" if it is about the whole
	what      string
}

func (e *formError) Error() string {
	if e.parameter == "" {
		return e.what
	}
	return fmt.Sprintf("a parameter %s", e.what)
}

// parseForm reads a form as net/url does, and refuses what could be read in
// two ways: a name sent twice (RFC 6749 section 3.2), even one that nobody
// knows; a bad percent escape; a raw semicolon; bytes that are not UTF-8 or
// are control characters. Every error is a *formError.
func parseForm(s string) (form, error) {
	if s == "" {
		return form{}, nil
	}
	f := form{params: make([]formParam, 0, 8)}
	for more := true; more; {
		var pair string
		pair, s, more = strings.Cut(s, "&")
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := decodeFormText(rawName, maxFormName)
		if err != nil {
			return form{}, &formError{what: "a parameter's name " + err.Error()}
		}
		if name == "" {
			return form{}, &formError{what: "a parameter has no name"}
		}
		if f.sent(name) {
			return form{}, &formError{name, "is sent twice"}
		}
		value, err := decodeFormText(rawValue, maxFormValue)
		if err != nil {
			return form{}, &formError{name, err.Error()}
		}
		if len(f.params) == maxFormParams {
			return form{}, &formError{what: fmt.Sprintf("more than %d parameters", maxFormParams)}
		}
		f.params = append(f.params, formParam{name, value})
	}
	return f, nil
}

// get returns a parameter's value; "" when it is absent, which is what one
// without a value counts as (RFC 6749 section 3.2).
func (f form) get(name string) string {
	for i := range f.params {
		if f.params[i].name == name {
			return f.params[i].value
		}
	}
	return ""
}

// sent reports whether the parameter is there, with or without a value.
func (f form) sent(name string) bool {
	for i := range f.params {
		if f.params[i].name == name {
			return true
		}
	}
	return false
}

// textError is why decodeFormText refuses; it continues "the value …".
type textError string

func (e textError) Error() string { return string(e) }

const (
	errTextLong    textError = "is too long"
	errTextEscape  textError = "has a bad percent escape"
	errTextSemi    textError = "has a semicolon that is not escaped"
	errTextUTF8    textError = "is not UTF-8"
	errTextControl textError = "has a control character"
)

// decodeFormText undoes the form encoding of one name or value.
func decodeFormText(s string, limit int) (string, error) {
	if len(s) > 3*limit {
		return "", errTextLong
	}
	encoded := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%' || c == '+' || c >= utf8.RuneSelf:
			encoded = true
		case c == ';':
			return "", errTextSemi
		case c < ' ' || c == 0x7f:
			return "", errTextControl
		}
	}
	if encoded {
		var err error
		if s, err = unescapeForm(s); err != nil {
			return "", err
		}
	}
	if len(s) > limit {
		return "", errTextLong
	}
	return s, nil
}

func unescapeForm(s string) (string, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '+':
			out = append(out, ' ')
		case '%':
			if i+2 >= len(s) {
				return "", errTextEscape
			}
			high, first := unhex(s[i+1])
			low, second := unhex(s[i+2])
			if !first || !second {
				return "", errTextEscape
			}
			out = append(out, high<<4|low)
			i += 2
		default:
			out = append(out, c)
		}
	}
	if !utf8.Valid(out) {
		return "", errTextUTF8
	}
	for _, c := range out {
		if c < ' ' || c == 0x7f {
			return "", errTextControl
		}
	}
	return string(out), nil
}

func unhex(c byte) (digit byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
