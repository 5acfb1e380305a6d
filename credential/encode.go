package credential

import (
	"encoding/json"
	"strconv"
	"time"
)

// AppendJSON appends the claims as the payload of an access token. The
// members come in one fixed order; absent ones are left out.
func (c *Claims) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	b = appendText(b, "iss", c.Issuer)
	b = appendText(b, "sub", c.Subject.id)
	b = appendText(b, "client_id", c.ClientID.id)
	b = appendText(b, "aud", c.Audience.name)
	b = appendText(b, "tenant", c.Tenant.id)
	b = appendText(b, "scope", c.Scopes.list)
	b = appendDate(b, "iat", c.IssuedAt)
	b = appendDate(b, "exp", c.Expires)
	b = appendDate(b, "nbf", c.NotBefore)
	b = appendText(b, "jti", c.ID)
	b = appendText(b, "txn", c.Txn)
	b = appendText(b, "job", c.Job)
	if c.Actor != nil {
		b = append(appendName(b, "act"), '{')
		b = append(c.Actor.appendMembers(b), '}')
	}
	if !c.Confirmation.IsZero() {
		b = append(appendName(b, "cnf"), '{')
		b = appendText(b, "x5t#S256", c.Confirmation.CertificateSHA256)
		b = appendText(b, "jkt", c.Confirmation.KeyThumbprint)
		b = append(b, '}')
	}
	return append(b, '}')
}

// MarshalJSON implements json.Marshaler with AppendJSON.
func (c Claims) MarshalJSON() ([]byte, error) { return c.AppendJSON(nil), nil }

func (a *Actor) appendMembers(b []byte) []byte {
	b = appendText(b, "sub", a.Subject.id)
	if a.By != nil {
		b = append(appendName(b, "act"), '{')
		b = append(a.By.appendMembers(b), '}')
	}
	return b
}

func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

func appendText(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = appendName(b, name)
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(value) // a string always marshals
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, value...)
	return append(b, '"')
}

func appendDate(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return strconv.AppendInt(appendName(b, name), t.Unix(), 10)
}
