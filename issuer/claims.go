package issuer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Limits of the claims of assertions and platform JWTs, in bytes.
const (
	maxIssuerLength   = 512
	maxSubjectLength  = 512
	maxAudienceLength = 512
	maxAssertionID    = 256 // `jti` of a client assertion
	maxNumericDate    = 253402300799
)

// jwtClaims are the registered claims (RFC 7519 section 4.1) of a JWT that
// somebody else made.
type jwtClaims struct {
	issuer   string
	subject  string
	audience string // the only one; "" if there is none
	id       string

	issued    time.Time
	expires   time.Time
	notBefore time.Time

	bound bool // it has a `cnf` (RFC 7800): worthless without proof of a key
}

// readClaims reads a payload strictly: no duplicate member at any depth, and
// each registered claim, where present, of its type and within its limit. An
// audience is a string or an array of exactly one.
//
// Errors: credential.ErrMalformed, credential.ErrClaim.
func readClaims(payload []byte) (jwtClaims, error) {
	members, err := credential.ParseObject(payload)
	if err != nil {
		return jwtClaims{}, err
	}
	var c jwtClaims
	for _, m := range members {
		switch string(m.Name) {
		case "iss":
			c.issuer, err = textClaim(m, maxIssuerLength)
		case "sub":
			c.subject, err = textClaim(m, maxSubjectLength)
		case "jti":
			c.id, err = textClaim(m, maxAssertionID)
		case "aud":
			c.audience, err = soleAudience(m)
		case "iat":
			c.issued, err = dateClaim(m)
		case "exp":
			c.expires, err = dateClaim(m)
		case "nbf":
			c.notBefore, err = dateClaim(m)
		case "cnf":
			c.bound = true
		}
		if err != nil {
			return jwtClaims{}, fmt.Errorf("%w: %s", credential.ErrClaim, m.Name)
		}
	}
	return c, nil
}

func textClaim(m credential.JSONMember, limit int) (string, error) {
	s, err := m.JSONText()
	if err != nil || s == "" || len(s) > limit || strings.IndexByte(s, 0) >= 0 {
		return "", credential.ErrClaim
	}
	return s, nil
}

func soleAudience(m credential.JSONMember) (string, error) {
	if m.Kind != credential.JSONArray {
		return textClaim(m, maxAudienceLength)
	}
	list, err := m.Elements()
	if err != nil || len(list) != 1 {
		return "", credential.ErrClaim
	}
	return textClaim(list[0], maxAudienceLength)
}

func dateClaim(m credential.JSONMember) (time.Time, error) {
	if m.Kind != credential.JSONNumber {
		return time.Time{}, credential.ErrClaim
	}
	f, err := strconv.ParseFloat(string(m.Value), 64)
	if err != nil || f < 1 || f > maxNumericDate {
		return time.Time{}, credential.ErrClaim
	}
	return time.Unix(int64(f), 0).UTC(), nil
}

// The ways in which the times of an authentic JWT can be wrong. Their texts
// are the reasons in the audit record.
var (
	errNoExpiry    = errors.New("missing_exp")
	errExpired     = errors.New("expired")
	errNotYet      = errors.New("not_yet_valid")
	errTooLong     = errors.New("lives_too_long")
	errNoAssertion = errors.New("missing_jti")
)

// errBound: the JWT is bound to a key, and no proof of one can be given here.
var errBound = errors.New("bound_to_a_key")

// current holds the times to now, give or take the leeway. `exp` is required;
// at that second it is over.
func (c *jwtClaims) current(now time.Time, leeway time.Duration) error {
	switch {
	case c.expires.IsZero():
		return errNoExpiry
	case !now.Before(c.expires.Add(leeway)):
		return errExpired
	case c.notBefore.After(now.Add(leeway)), c.issued.After(now.Add(leeway)):
		return errNotYet
	case !c.issued.IsZero() && !c.expires.After(c.issued):
		return errExpired
	}
	return nil
}

// short holds a client assertion to its longest life (RFC 7523 section 3): from
// `iat`, or from now without one.
func (c *jwtClaims) short(now time.Time, leeway time.Duration) error {
	if c.expires.Sub(now) > credential.MaxAssertionLifetime+leeway ||
		!c.issued.IsZero() && c.expires.Sub(c.issued) > credential.MaxAssertionLifetime {
		return errTooLong
	}
	return nil
}
