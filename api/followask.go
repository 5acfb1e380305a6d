package api

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

const (
	// longestWait is how long a poll may wait; who asks for more gets this.
	longestWait = 30 * time.Second

	maxKeyID    = 128 // bytes of a kid that a verifier reports
	minInstance = 16  // characters of a verifier's name for itself
	maxInstance = 64
)

// followAsk is what a follower asks for.
type followAsk struct {
	all      bool   // everything, whatever it has seen
	after    uint64 // else what came after this place
	from     uint64 // up to where it was looked at already; at least after
	instance string // the verifier's random name for itself, "" if it reports nothing
	keys     []string
}

// readFollow reads the query strictly.
func readFollow(q form) (ask followAsk, err error) {
	ask.all = !q.sent("after")
	if !ask.all {
		text := q.get("after")
		if ask.after, err = strconv.ParseUint(text, 10, 63); err != nil || strconv.FormatUint(ask.after, 10) != text {
			return ask, refuse(wire.CodeMalformed, "after", "the seq of an answer, in decimal")
		}
		ask.from = ask.after
	}
	ask.instance = q.get("verifier")
	switch {
	case !q.sent("verifier") && q.sent("keys"):
		return ask, refuse(wire.CodeMalformed, "keys", "goes with verifier")
	case !q.sent("verifier"):
		return ask, nil
	case len(ask.instance) < minInstance || !plain(ask.instance, maxInstance):
		return ask, refuse(wire.CodeMalformed, "verifier", "16 to 64 letters, digits, - and _, at random")
	}
	if q.get("keys") == "" {
		return ask, nil
	}
	ask.keys = strings.Split(q.get("keys"), ",")
	if len(ask.keys) > keys.MaxKeys {
		return ask, refuse(wire.CodeMalformed, "keys", "too many")
	}
	for i, kid := range ask.keys {
		if !plain(kid, maxKeyID) || slices.Contains(ask.keys[:i], kid) {
			return ask, refuse(wire.CodeMalformed, "keys", "key ids, separated by commas, each once")
		}
	}
	return ask, nil
}

// plain reports whether s is 1 to limit characters of base64url.
func plain(s string, limit int) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return s != "" && len(s) <= limit
}

// preferredWait reads `wait` of the header Prefer (RFC 7240 section 4.3): how
// long to wait, at most longestWait; 0 without one. What can't be read is
// ignored, as the RFC asks; of several the first counts.
func preferredWait(h http.Header) time.Duration {
	for _, value := range h["Prefer"] {
		for preference := range splitUnquoted(value, ',') {
			main := preference
			for part := range splitUnquoted(preference, ';') {
				main = part
				break
			}
			name, text, _ := strings.Cut(main, "=")
			if !strings.EqualFold(strings.Trim(name, " \t"), "wait") {
				continue
			}
			text = strings.Trim(text, " \t")
			if inner, quoted := strings.CutPrefix(text, `"`); quoted {
				text = strings.TrimSuffix(inner, `"`)
			}
			n, err := strconv.ParseUint(text, 10, 31)
			if err != nil {
				return 0
			}
			return min(time.Duration(n)*time.Second, longestWait)
		}
	}
	return 0
}

// splitUnquoted yields the parts of s between separators outside of quoted
// strings (RFC 9110 section 5.6.4).
func splitUnquoted(s string, separator byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		from, quoted := 0, false
		for i := 0; i < len(s); i++ {
			switch c := s[i]; {
			case c == '"':
				quoted = !quoted
			case c == '\\' && quoted:
				i++
			case c == separator && !quoted:
				if !yield(s[from:i]) {
					return
				}
				from = i + 1
			}
		}
		yield(s[from:])
	}
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
