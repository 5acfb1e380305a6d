package api

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"
)

// maxSecretLength bounds what a client may send as its secret, in bytes.
const maxSecretLength = 512

// Ways in which an Authorization header is refused.
var (
	errAuthorizationTwice  = errors.New("more than one Authorization header")
	errAuthorizationScheme = errors.New("not the scheme that this endpoint takes")
	errAuthorizationForm   = errors.New("malformed Authorization header")
)

// authorization returns the credentials of the request's Authorization header
// when it is of the scheme, "" when there is none.
func authorization(h http.Header, scheme string) (string, error) {
	values := h["Authorization"]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", errAuthorizationTwice
	}
	got, rest, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(got, scheme) {
		return "", errAuthorizationScheme
	}
	rest = strings.TrimLeft(rest, " ")
	if rest == "" {
		return "", errAuthorizationForm
	}
	return rest, nil
}

// parseBasic reads the credentials of scheme Basic (RFC 7617) the way RFC 6749
// section 2.3.1 fills them: id and secret are form-encoded, then joined.
func parseBasic(credentials string) (id, secret string, err error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(credentials)
	if err != nil || strings.ContainsAny(credentials, "\r\n") || !utf8.Valid(raw) {
		return "", "", errAuthorizationForm
	}
	rawID, rawSecret, found := strings.Cut(string(raw), ":")
	if !found {
		return "", "", errAuthorizationForm
	}
	if id, err = decodeFormText(rawID, maxFormName); err != nil || id == "" {
		return "", "", errAuthorizationForm
	}
	if secret, err = decodeFormText(rawSecret, maxSecretLength); err != nil || secret == "" {
		return "", "", errAuthorizationForm
	}
	return id, secret, nil
}
