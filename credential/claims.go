package credential

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Limits of claims.
const (
	MaxIDLength   = 128 // `jti`, `txn`, `job`, bytes
	MaxActorDepth = 4   // nested `act`
)

// latest is the last second a NumericDate may name: the end of the year 9999.
const latest = 253402300799

// Claims are the contents of an access token (RFC 9068) of the broker. Exactly
// one tenant is among them.
type Claims struct {
	Issuer       string    // iss
	Subject      AccountID // sub: who the token is about
	ClientID     AccountID // client_id: the account that authenticated
	Audience     Audience  // aud, a single string
	Tenant       Tenant    // tenant
	Scopes       Scopes    // scope
	IssuedAt     time.Time // iat, whole seconds
	Expires      time.Time // exp, whole seconds; at this instant it is over
	NotBefore    time.Time // nbf; zero if absent. The broker writes none
	ID           string    // jti
	Txn          string    // txn (RFC 8417): kept through a whole chain
	Actor        *Actor    // act (RFC 8693): nil without delegation
	Job          string    // job: the jti of the ticket it came from
	Confirmation Confirmation
}

// Actor is who presents the token on the subject's behalf; By is who
// presented it before.
type Actor struct {
	Subject AccountID
	By      *Actor
}

// Confirmation binds a token to a key its holder must prove (RFC 7800).
type Confirmation struct {
	CertificateSHA256 string // x5t#S256 (RFC 8705)
	KeyThumbprint     string // jkt (RFC 9449)
}

// IsZero reports whether the token is a plain bearer token.
func (c Confirmation) IsZero() bool { return c == Confirmation{} }

// ParseClaims reads the payload of an access token, which the caller has
// verified, and holds it to I1: exactly one top-level `tenant`, a string in
// the tenant grammar, and nothing that could pass for a second one. Times,
// issuer and audience are not compared here.
//
// Errors: ErrMalformed, ErrTenant, ErrClaim.
func ParseClaims(payload []byte) (Claims, error) {
	s := newScanner(payload, tokenLimits)
	defer s.release()
	members, err := s.document()
	if err != nil {
		return Claims{}, err
	}
	var c Claims
	for _, m := range members {
		if err := c.set(m); err != nil {
			return Claims{}, err
		}
	}
	if c.Tenant.IsZero() {
		return Claims{}, fmt.Errorf("%w: none", ErrTenant)
	}
	if missing := c.missing(); missing != "" {
		return Claims{}, fmt.Errorf("%w: %s is missing", ErrClaim, missing)
	}
	return c, nil
}

func (c *Claims) set(m JSONMember) (err error) {
	switch string(m.Name) {
	case "tenant":
		c.Tenant, err = tenantClaim(m)
		return err
	case "iss":
		c.Issuer, err = boundedText(m, MaxAudienceLength)
	case "sub":
		c.Subject, err = parsedText(m, ParseAccountID)
	case "client_id":
		c.ClientID, err = parsedText(m, ParseAccountID)
	case "aud":
		c.Audience, err = parsedText(m, ParseAudience)
	case "scope":
		c.Scopes, err = parsedText(m, ParseScopes)
	case "iat":
		c.IssuedAt, err = numericDate(m)
	case "exp":
		c.Expires, err = numericDate(m)
	case "nbf":
		c.NotBefore, err = numericDateUp(m)
	case "jti":
		c.ID, err = boundedText(m, MaxIDLength)
	case "txn":
		c.Txn, err = boundedText(m, MaxIDLength)
	case "job":
		c.Job, err = boundedText(m, MaxIDLength)
	case "act":
		c.Actor, err = parseActor(m, 1)
	case "cnf":
		c.Confirmation, err = parseConfirmation(m)
	default:
		return refuseTenantLookalike(m.Name)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", ErrClaim, m.Name)
	}
	return nil
}

// missing names the first required claim that is absent (RFC 9068 section 2.2,
// and `txn`, which starts every chain).
func (c *Claims) missing() string {
	switch {
	case c.Issuer == "":
		return "iss"
	case c.Subject.IsZero():
		return "sub"
	case c.ClientID.IsZero():
		return "client_id"
	case c.Audience.IsZero():
		return "aud"
	case c.IssuedAt.IsZero():
		return "iat"
	case c.Expires.IsZero():
		return "exp"
	case c.ID == "":
		return "jti"
	case c.Txn == "":
		return "txn"
	}
	return ""
}

// tenantClaim is I1 for the value: a JSON string in the tenant grammar.
func tenantClaim(m JSONMember) (Tenant, error) {
	if m.Kind != JSONString {
		return Tenant{}, fmt.Errorf("%w: not a string", ErrTenant)
	}
	t, err := parsedText(m, ParseTenant)
	if err != nil {
		return Tenant{}, fmt.Errorf("%w: %w", ErrTenant, err)
	}
	return t, nil
}

// refuseTenantLookalike is I1 for the names: another library could fold case,
// or read a plural, and see a second tenant.
func refuseTenantLookalike(name []byte) error {
	if len(name) > 2*len("tenants") { // no folding of "tenants" is longer
		return nil
	}
	if s := string(name); strings.EqualFold(s, "tenant") || strings.EqualFold(s, "tenants") {
		return fmt.Errorf("%w: a member named like it", ErrTenant)
	}
	return nil
}

func parsedText[T any](m JSONMember, parse func(string) (T, error)) (T, error) {
	s, err := m.JSONText()
	if err != nil {
		var none T
		return none, err
	}
	return parse(s)
}

func boundedText(m JSONMember, limit int) (string, error) {
	s, err := m.JSONText()
	if err != nil || s == "" || len(s) > limit {
		return "", ErrClaim
	}
	return s, nil
}

// numericDate reads seconds since 1970 (RFC 7519 section 2). A fraction is
// allowed and dropped; beyond the year 9999, or before 1970, is refused.
func numericDate(m JSONMember) (time.Time, error) {
	f, err := number(m)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(int64(f), 0).UTC(), nil
}

// numericDateUp is numericDate for a beginning: a fraction counts as a whole
// second, so that nothing is valid too early.
func numericDateUp(m JSONMember) (time.Time, error) {
	f, err := number(m)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(int64(math.Ceil(f)), 0).UTC(), nil
}

func number(m JSONMember) (float64, error) {
	if m.Kind != JSONNumber {
		return 0, ErrClaim
	}
	f, err := strconv.ParseFloat(string(m.Value), 64)
	if err != nil || f < 1 || f > latest {
		return 0, ErrClaim
	}
	return f, nil
}

func parseActor(m JSONMember, depth int) (*Actor, error) {
	if m.Kind != JSONObject || depth > MaxActorDepth {
		return nil, ErrClaim
	}
	members, err := ParseObject(m.Value)
	if err != nil {
		return nil, err
	}
	a := new(Actor)
	for _, m := range members {
		switch string(m.Name) {
		case "sub":
			a.Subject, err = parsedText(m, ParseAccountID)
		case "act":
			a.By, err = parseActor(m, depth+1)
		}
		if err != nil {
			return nil, err
		}
	}
	if a.Subject.IsZero() {
		return nil, ErrClaim
	}
	return a, nil
}

func parseConfirmation(m JSONMember) (Confirmation, error) {
	if m.Kind != JSONObject {
		return Confirmation{}, ErrClaim
	}
	members, err := ParseObject(m.Value)
	if err != nil {
		return Confirmation{}, err
	}
	var c Confirmation
	for _, m := range members {
		switch string(m.Name) {
		case "x5t#S256":
			c.CertificateSHA256, err = boundedText(m, MaxIDLength)
		case "jkt":
			c.KeyThumbprint, err = boundedText(m, MaxIDLength)
		}
		if err != nil {
			return Confirmation{}, err
		}
	}
	if c.IsZero() { // a binding we don't know must not read as "no binding"
		return Confirmation{}, ErrClaim
	}
	return c, nil
}
