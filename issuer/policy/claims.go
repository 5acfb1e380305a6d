package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Claims are what a platform says of a workload, in the form that CEL reads:
// JSON numbers without fraction or exponent that fit are int, others double.
// The zero Claims are empty. They are never what a workload says of itself.
type Claims struct{ members map[string]any }

// ParseClaims reads the payload of a JWT that was verified. It is as strict as
// credential.ParseObject, and refuses numbers beyond the range of a double.
//
// Every error wraps credential.ErrMalformed.
func ParseClaims(payload []byte) (Claims, error) {
	if _, err := credential.ParseObject(payload); err != nil {
		return Claims{}, err
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var members map[string]any
	if err := d.Decode(&members); err != nil {
		return Claims{}, fmt.Errorf("%w: claims", credential.ErrMalformed)
	}
	for name, v := range members {
		n, err := native(v)
		if err != nil {
			return Claims{}, err
		}
		members[name] = n
	}
	return Claims{members}, nil
}

func (c Claims) value() map[string]any {
	if c.members == nil {
		return map[string]any{}
	}
	return c.members
}

// native replaces the numbers in a decoded document.
func native(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
				return n, nil
			}
		}
		f, err := strconv.ParseFloat(v.String(), 64)
		if err != nil {
			return nil, fmt.Errorf("%w: a number is out of range", credential.ErrMalformed)
		}
		return f, nil
	case []any:
		for i := range v {
			n, err := native(v[i])
			if err != nil {
				return nil, err
			}
			v[i] = n
		}
	case map[string]any:
		for name := range v {
			n, err := native(v[name])
			if err != nil {
				return nil, err
			}
			v[name] = n
		}
	}
	return v, nil
}
