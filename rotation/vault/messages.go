package vault

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what is kept of Vault's own messages.
const (
	maxMessages      = 4
	maxMessageLength = 300
	// echoWindow is how many bytes in a row a message must share with a value
	// that was sent to count as showing it. A shorter value must be there as a
	// whole; one under minEcho is in any text.
	echoWindow = 8
	minEcho    = 4
)

// withheld stands for a message that repeats what was sent.
const withheld = "(a message is withheld: it repeats what was sent)"

// plainFields are the fields of a body whose values are names and settings,
// which a message may repeat.
var plainFields = map[string]bool{
	"type": true, "name": true, "role": true, "mount": true, "db_name": true, "username": true, "lease_id": true,
	"hash_algorithm": true, "marshaling_algorithm": true, "signature_algorithm": true, "credential_type": true,
}

// shown returns what Vault said, one line each, bounded, and without what was
// sent. A body that is not Vault's is not shown at all.
func shown(said, sent []string) []string {
	if len(said) > maxMessages {
		said = append(said[:maxMessages:maxMessages], fmt.Sprintf("and %d more", len(said)-maxMessages))
	}
	out := make([]string, 0, len(said))
	for _, m := range said {
		if m = strings.TrimSpace(m); m == "" {
			continue
		}
		if echoes(m, sent) {
			m = withheld
		}
		if m = printable(m); len(m) > maxMessageLength {
			m = strings.ToValidUTF8(m[:maxMessageLength], "") + "…"
		}
		out = append(out, m)
	}
	return out
}

// echoes reports whether a message shows one of the values, or a part of it,
// as it was sent or in base64.
func echoes(message string, sent []string) bool {
	texts := append([]string{message}, decodedRuns(message)...)
	windows := make(map[string]bool)
	for _, text := range texts {
		for i := 0; i+echoWindow <= len(text); i++ {
			windows[text[i:i+echoWindow]] = true
		}
	}
	for _, value := range sent {
		for _, form := range forms(value) {
			if len(form) < echoWindow {
				short := func(text string) bool { return len(form) >= minEcho && strings.Contains(text, form) }
				if slices.ContainsFunc(texts, short) {
					return true
				}
				continue
			}
			for i := 0; i+echoWindow <= len(form); i++ {
				if windows[form[i:i+echoWindow]] {
					return true
				}
			}
		}
	}
	return false
}

var base64Run = regexp.MustCompile(`[A-Za-z0-9+/_-]{6,}`)

// decodedRuns is what may be in base64 in a text.
func decodedRuns(text string) (decoded []string) {
	for _, run := range base64Run.FindAllString(text, -1) {
		run = strings.NewReplacer("-", "+", "_", "/").Replace(run)
		if plain, err := base64.RawStdEncoding.DecodeString(run[:len(run)-len(run)%4]); err == nil {
			decoded = append(decoded, string(plain))
		}
	}
	return decoded
}

// forms are the shapes of a value: itself, what it is the base64 of, and as it
// stands in quotes.
func forms(value string) []string {
	all := []string{value}
	if plain, err := base64.StdEncoding.DecodeString(value); err == nil {
		all = append(all, string(plain))
	}
	if quoted := strconv.Quote(value); quoted[1:len(quoted)-1] != value {
		all = append(all, quoted[1:len(quoted)-1])
	}
	return all
}

// leaves collects the strings in a body that a message must not repeat.
func leaves(v any, into []string) []string {
	switch v := v.(type) {
	case string:
		return append(into, v)
	case []string:
		return append(into, v...)
	case []any:
		for _, item := range v {
			into = leaves(item, into)
		}
	case []map[string]any:
		for _, item := range v {
			into = leaves(item, into)
		}
	case map[string]any:
		for name, item := range v {
			if _, text := item.(string); text && plainFields[name] {
				continue
			}
			into = leaves(item, into)
		}
	case map[string]string:
		for name, item := range v {
			if !plainFields[name] {
				into = append(into, item)
			}
		}
	}
	return into
}

// printable makes one line of text, without control characters.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0x2028 || r == 0x2029 || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return strings.Join(strings.Fields(s), " ")
}
