package audit

import (
	"encoding/hex"
	"strconv"
	"time"
	"unicode/utf8"
)

// Limits of a line. Text over its limit is cut at encoding, at the end of a
// character: an event is recorded whatever a caller put into it.
const (
	MaxLineLength = 16 << 10 // the whole line, bytes
	MaxTextLength = 512      // each text as written, bytes
	MaxListLength = 2048     // `scope` and `reason` as written, bytes
)

// timeLayout has one spelling for each millisecond.
const timeLayout = "2006-01-02T15:04:05.000Z"

// AppendLine appends the canonical line of r as written by writer, without a
// line end: JSON with its members in one fixed order, empty ones left out.
// Equal records have equal lines. Bytes that are not UTF-8 become U+FFFD. It
// allocates nothing but what b needs to grow.
func AppendLine(b []byte, r *Record, writer string) []byte {
	return appendLine(b, r, writer, r.Seq, r.Prev)
}

// AppendNext is AppendLine for the record that comes after the one with this
// sequence number and hash; r's own Seq and Prev are not looked at.
func AppendNext(b []byte, r *Record, writer string, seq uint64, hash [32]byte) []byte {
	var prev [64]byte
	hex.Encode(prev[:], hash[:])
	return appendLine(b, r, writer, seq+1, prev[:])
}

func appendLine[T string | []byte](b []byte, r *Record, writer string, seq uint64, prev T) []byte {
	b = append(b, `{"seq":`...)
	b = strconv.AppendUint(b, seq, 10)
	b = appendText(b, `,"writer":"`, writer, MaxWriterLength)
	b = appendText(b, `,"tenant":"`, r.Tenant.String(), MaxTextLength)
	b = append(b, `,"time":"`...)
	b = appendTime(b, r.Time)
	b = append(b, '"')
	b = appendText(b, `,"type":"`, r.Type, MaxTextLength)
	b = appendText(b, `,"decision":"`, string(r.Decision), MaxTextLength)
	b = appendText(b, `,"reason":"`, r.Reason, MaxListLength)
	b = appendText(b, `,"subject":"`, r.Subject, MaxTextLength)
	b = appendText(b, `,"actor":"`, r.Actor, MaxTextLength)
	b = appendText(b, `,"client_id":"`, r.ClientID, MaxTextLength)
	if r.Resource != (Resource{}) {
		b = append(b, `,"resource":{"type":"`...)
		b = appendEscaped(b, r.Resource.Type, MaxTextLength)
		b = append(b, `","id":"`...)
		b = appendEscaped(b, r.Resource.ID, MaxTextLength)
		b = append(b, `"}`...)
	}
	b = appendText(b, `,"audience":"`, r.Audience, MaxTextLength)
	b = appendText(b, `,"scope":"`, r.Scope, MaxListLength)
	b = appendText(b, `,"jti":"`, r.JTI, MaxTextLength)
	b = appendText(b, `,"txn":"`, r.Txn, MaxTextLength)
	b = appendText(b, `,"kid":"`, r.KeyID, MaxTextLength)
	b = appendText(b, `,"grant":"`, r.Grant, MaxTextLength)
	if !r.Expires.IsZero() {
		b = append(b, `,"expires":"`...)
		b = appendTime(b, r.Expires)
		b = append(b, '"')
	}
	b = appendText(b, `,"ip":"`, r.IP, MaxTextLength)
	b = appendText(b, `,"request_id":"`, r.RequestID, MaxTextLength)
	if r.Count != 0 {
		b = append(b, `,"count":`...)
		b = strconv.AppendUint(b, r.Count, 10)
	}
	b = append(b, `,"prev":"`...)
	b = append(b, prev...)
	return append(b, `"}`...)
}

// appendText appends one member; open is its name with all that stands before
// the text.
func appendText(b []byte, open, text string, limit int) []byte {
	if text == "" {
		return b
	}
	b = append(b, open...)
	b = appendEscaped(b, text, limit)
	return append(b, '"')
}

// appendEscaped writes what JSON requires to be escaped (RFC 8259 section 7)
// as a quote, a backslash or \u00xx, everything else as itself.
func appendEscaped(b []byte, text string, limit int) []byte {
	text = clip(text, limit)
	plain := 0 // text[plain:i] needs no escape
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, size := utf8.DecodeRuneInString(text[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		b = append(b, text[plain:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, "\uFFFD"...)
		}
		i++
		plain = i
	}
	return append(b, text[plain:]...)
}

// clip cuts text to at most limit bytes as they will be written, at the end of
// a character.
func clip(text string, limit int) string {
	if len(text) <= limit/6 { // even if each byte is escaped
		return text
	}
	size := 0
	for i, r := range text {
		switch {
		case r < ' ':
			size += len(`\u0000`)
		case r == '"' || r == '\\':
			size += 2
		default: // a byte that is not UTF-8 is read, and written, as U+FFFD
			size += utf8.RuneLen(r)
		}
		if size > limit {
			return text[:i]
		}
	}
	return text
}

func appendTime(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, timeLayout) }

const hexDigits = "0123456789abcdef"
