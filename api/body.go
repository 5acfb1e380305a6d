package api

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// readBody returns the body, which the adapter has bounded. One that is said to
// be too large is refused before it is read.
func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, tooLarge()
	}
	var b []byte
	var err error
	if n := r.ContentLength; n > 0 {
		b = make([]byte, n) // net/http ends the body there
		_, err = io.ReadFull(r.Body, b)
	} else {
		b, err = io.ReadAll(r.Body)
	}
	if err == nil {
		return b, nil
	}
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return nil, tooLarge()
	}
	return nil, refuse(wire.CodeMalformed, "", "the body could not be read")
}

func tooLarge() error {
	return refuse(wire.CodeTooLarge, "", fmt.Sprintf("the body is over %d bytes", maxBody))
}

// jsonBody reads a JSON body of one of the media types; any parameter but
// charset=utf-8 is refused.
func jsonBody(r *http.Request, mediaTypes ...string) ([]byte, error) {
	types := r.Header["Content-Type"]
	if len(types) != 1 || !isMediaType(types[0], mediaTypes...) {
		return nil, refuse(wire.CodeMediaType, "", "send "+strings.Join(mediaTypes, " or "))
	}
	return readBody(r)
}

func isMediaType(header string, wanted ...string) bool {
	got, params, err := mime.ParseMediaType(header)
	if err != nil {
		return false
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return false
		}
	}
	for _, w := range wanted {
		if got == w {
			return true
		}
	}
	return false
}

// decodeStrict reads a JSON object into the struct that v points to. Beyond
// encoding/json it refuses duplicate members and invalid UTF-8 at any depth,
// members that the struct does not have, and members that match one only when
// case is ignored. The error names the member.
func decodeStrict(data []byte, v any) error {
	members, err := credential.ParseObject(data)
	if err != nil {
		return refuse(wire.CodeMalformed, "", strings.TrimPrefix(err.Error(), credential.ErrMalformed.Error()+": "))
	}
	if err := checkMembers(members, reflect.TypeOf(v).Elem(), ""); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return decodeError(err, v, members)
	}
	return nil
}

// checkMembers holds the members to the fields of the struct t, and so on
// downwards where a field is a struct that encoding/json reads member by member.
func checkMembers(members []credential.JSONMember, t reflect.Type, path string) error {
	for _, m := range members {
		name := path + string(m.Name)
		field, found := jsonField(t, string(m.Name))
		if !found {
			return refuse(wire.CodeInvalid, showName(name), "there is no such member")
		}
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		if m.Kind != credential.JSONObject || field.Kind() != reflect.Struct || readsItself(field) {
			continue
		}
		inner, err := credential.ParseObject(m.Value)
		if err != nil {
			return refuse(wire.CodeMalformed, showName(name), "not an object")
		}
		if err := checkMembers(inner, field, name+"."); err != nil {
			return err
		}
	}
	return nil
}

// jsonField returns the type of the field that a member of this exact name sets.
func jsonField(t reflect.Type, name string) (reflect.Type, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			if inner, found := jsonField(f.Type, name); found {
				return inner, true
			}
			continue
		}
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name && tag != "" && tag != "-" {
			return f.Type, true
		}
	}
	return nil, false
}

var (
	jsonReader = reflect.TypeFor[json.Unmarshaler]()
	textReader = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func readsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonReader) || p.Implements(textReader)
}

// decodeError finds the member at fault. encoding/json names it for wrong
// types; an error from a type's own parser comes without, so each member is
// tried by itself.
func decodeError(err error, v any, members []credential.JSONMember) error {
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) && wrong.Field != "" {
		name := memberName(wrong.Field, reflect.TypeOf(v).Elem())
		expected := wrong.Type
		if field, found := jsonField(reflect.TypeOf(v).Elem(), name); found { // the whole of a list, not what is in it
			expected = field
		}
		return refuse(wire.CodeInvalid, showName(name), "must be "+kindName(expected))
	}
	for _, m := range members {
		field, _ := jsonField(reflect.TypeOf(v).Elem(), string(m.Name))
		if err := json.Unmarshal(m.Value, reflect.New(field).Interface()); err != nil {
			return refuse(wire.CodeInvalid, showName(string(m.Name)), publicText(err))
		}
	}
	return refuse(wire.CodeInvalid, "", publicText(err))
}

// memberName is the path of a member without the names of embedded structs,
// which no client knows.
func memberName(path string, t reflect.Type) string {
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous {
			path = strings.TrimPrefix(path, f.Name+".")
		}
	}
	return path
}

// publicText is the text of a parser of credential, which names rules and
// positions and never repeats its input; anything else is put in our words.
func publicText(err error) string {
	s := err.Error()
	switch {
	case strings.HasPrefix(s, "parsing time"), strings.HasPrefix(s, "Time.Unmarshal"):
		return "must be " + kindName(reflect.TypeFor[time.Time]())
	case strings.HasPrefix(s, "json:"), strings.Contains(s, `"\`):
		return "not of the right form"
	}
	return s
}

// kindName says what JSON a type is read from.
func kindName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[credential.Scopes]():
		return `one string, with a space between scopes: "orders:read orders:write"`
	case reflect.TypeFor[credential.Lifetime]():
		return `a string such as "5m"`
	case reflect.TypeFor[time.Time]():
		return `a string such as "2026-01-31T12:00:00Z"`
	}
	if reflect.PointerTo(t).Implements(textReader) {
		return "a string"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a whole number"
	case reflect.Slice, reflect.Array:
		if kindName(t.Elem()) == "a string" {
			return "a list of strings"
		}
		return "a list"
	case reflect.Map, reflect.Struct:
		if readsItself(t) {
			return "of the right form"
		}
		return "an object"
	}
	return "a string"
}

// showName bounds a member's name that came from the client before it is
// shown: a name is not a secret, but it may be anything.
func showName(name string) string {
	const limit = 64
	if len(name) > limit {
		name = strings.ToValidUTF8(name[:limit], "") + "…"
	}
	return name
}
