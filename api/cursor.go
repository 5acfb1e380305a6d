package api

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/tenantbroker/tenantbroker/api/wire"
)

// A cursor says where the next page starts. It is opaque to clients, names the
// list it belongs to so that it can't be used on another, and carries no
// authority: what may be seen is decided for every page anew.

const cursorVersion = "1"

var cursor64 = base64.RawURLEncoding.Strict()

// makeCursor returns "" for an empty position: there is no next page.
func makeCursor(list, position string) string {
	if position == "" {
		return ""
	}
	return cursor64.EncodeToString([]byte(cursorVersion + "\x00" + list + "\x00" + position))
}

func parseCursor(list, cursor string) (position string, err error) {
	if cursor == "" {
		return "", nil
	}
	raw, err := cursor64.DecodeString(cursor)
	prefix := cursorVersion + "\x00" + list + "\x00"
	if err != nil || len(raw) <= len(prefix) || !strings.HasPrefix(string(raw), prefix) {
		return "", refuse(wire.CodeMalformed, "cursor", "not a cursor of this list")
	}
	return string(raw[len(prefix):]), nil
}

// parseLimit reads the parameter limit: 1 to wire.MaxLimit, "" for the default.
func parseLimit(s string) (int, error) {
	if s == "" {
		return wire.DefaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > wire.MaxLimit || strconv.Itoa(n) != s {
		return 0, refuse(wire.CodeMalformed, "limit", "a whole number from 1 to "+strconv.Itoa(wire.MaxLimit))
	}
	return n, nil
}
