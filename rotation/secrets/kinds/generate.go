package kinds

import (
	"crypto/rand"
	"math"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Limits of generated values.
const (
	minLength     = 8
	maxLength     = 1024
	defaultLength = 43
	minEntropy    = 128 // bits
)

// alphabets are those that have a name.
var alphabets = map[string]string{
	"alphanumeric": "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
	"hex":          "0123456789abcdef",
	"base64url":    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
	// Printable, without what shells and connection strings treat specially.
	"symbols": "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#%*+,-.:=?_~",
}

// checkAlphabet holds length and alphabet to enough randomness.
func checkAlphabet(length int, alphabet string) error {
	chars, known := alphabets[alphabet]
	switch {
	case !known:
		return registry.Invalid("spec.alphabet", "alphanumeric, hex, base64url or symbols")
	case length < minLength || length > maxLength:
		return registry.Invalid("spec.length", "%d to %d characters", minLength, maxLength)
	case float64(length)*math.Log2(float64(len(chars))) < minEntropy:
		return registry.Invalid("spec.length", "too short for this alphabet: at least %d random bits", minEntropy)
	}
	return nil
}

// generate returns a value of fresh random characters.
func generate(length int, alphabet string) credential.Secret {
	chars := alphabets[alphabet]
	// Bytes that would favour the first characters are thrown away.
	limit := 256 - 256%len(chars)
	value := make([]byte, 0, length)
	var buffer [128]byte
	for len(value) < length {
		_, _ = rand.Read(buffer[:]) // never fails
		for _, b := range buffer {
			if int(b) < limit && len(value) < length {
				value = append(value, chars[int(b)%len(chars)])
			}
		}
	}
	return credential.NewSecret(value)
}

// wellFormed reports whether a value could be one that generate made.
func wellFormed(value string, length int, alphabet string) bool {
	return len(value) == length && strings.Trim(value, alphabets[alphabet]) == ""
}
