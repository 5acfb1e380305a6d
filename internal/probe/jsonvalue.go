package probe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// isPointer reports whether s is a JSON pointer (RFC 6901); the empty one is the
// whole.
func isPointer(s string) bool {
	if s != "" && !strings.HasPrefix(s, "/") || len(s) > maxText {
		return false
	}
	rest := strings.ReplaceAll(strings.ReplaceAll(s, "~0", ""), "~1", "")
	return !strings.Contains(rest, "~")
}

var errNoValue = errors.New("there is no such value")

// at returns a string or number of a document.
func at(document any, pointer string) (any, error) {
	here := document
	if pointer != "" {
		for part := range strings.SplitSeq(pointer[1:], "/") {
			part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
			switch in := here.(type) {
			case map[string]any:
				here = in[part]
			case []any:
				i, err := strconv.Atoi(part)
				if err != nil || i < 0 || i >= len(in) {
					return nil, errNoValue
				}
				here = in[i]
			default:
				return nil, errNoValue
			}
		}
	}
	switch v := here.(type) {
	case string:
		if v != "" {
			return v, nil
		}
	case json.Number:
		return v, nil
	}
	return nil, errNoValue
}

// parseJSON reads one document, or returns nil.
func parseJSON(data []byte) any {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil
	}
	return v
}

// parseLines reads one document per line, as exports write them, or nil.
func parseLines(data []byte) []any {
	var all []any
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		v := parseJSON(line)
		if v == nil {
			return nil
		}
		all = append(all, v)
	}
	return all
}

// leaves names every scalar of a document by its path.
func leaves(document any, path string, into map[string]string) {
	switch v := document.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			leaves(v[name], path+"/"+name, into)
		}
	case []any:
		for i, item := range v {
			leaves(item, path+"/"+strconv.Itoa(i), into)
		}
	case nil:
		into[path] = "null"
	default:
		into[path] = fmt.Sprint(v)
	}
}

// texts are the strings of a document as they are meant, names of members too.
func texts(document any, into *[]string) {
	switch v := document.(type) {
	case map[string]any:
		for name, item := range v {
			*into = append(*into, name)
			texts(item, into)
		}
	case []any:
		for _, item := range v {
			texts(item, into)
		}
	case string, json.Number:
		*into = append(*into, fmt.Sprint(v))
	}
}
