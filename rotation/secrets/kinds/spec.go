package kinds

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Limits of specs.
const (
	maxPath  = 256 // bytes
	maxName  = 64
	maxField = 64
)

// readSpec reads a spec into the struct that v points to: strict JSON, and no
// member that the struct doesn't have, letter for letter.
func readSpec(raw json.RawMessage, v any) error {
	members, err := credential.ParseObject(raw)
	if err != nil {
		return registry.Invalid("spec", "not a strict JSON object")
	}
	known := make(map[string]bool)
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		known[name] = true
	}
	for _, m := range members {
		if !known[string(m.Name)] {
			return registry.Invalid("spec", "has a member that this kind doesn't know")
		}
		if err := json.Unmarshal(m.Value, newField(t, string(m.Name))); err != nil || m.Kind == credential.JSONNull {
			return registry.Invalid("spec."+string(m.Name), "not of the right form")
		}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields() // further down
	if err := d.Decode(v); err != nil {
		return registry.Invalid("spec", "has a member that this kind doesn't know")
	}
	return nil
}

// newField returns a pointer to a new value of the field with this name.
func newField(t reflect.Type, name string) any {
	for i := range t.NumField() {
		if tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); tag == name {
			return reflect.New(t.Field(i).Type).Interface()
		}
	}
	return new(any)
}

// stored reads back the spec of a secret that was checked when it was declared.
func stored[T any](s *secrets.Work) (T, error) {
	var spec T
	err := json.Unmarshal(s.Secret.Spec, &spec)
	return spec, err
}

func canonical(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // structs of strings and numbers
	}
	return b
}

// checkPath holds a path in Vault to segments of letters, digits and _ . -, none
// of which begins with a dot.
func checkPath(field, path string, limit int) error {
	if path == "" || len(path) > limit {
		return registry.Invalid(field, "1 to %d bytes", limit)
	}
	for _, segment := range strings.Split(path, "/") {
		if segment == "" || segment[0] == '.' || strings.ContainsFunc(segment, unusual) {
			return registry.Invalid(field, "segments of letters, digits and _ . - between single slashes, none beginning with a dot")
		}
	}
	return nil
}

func unusual(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '.', r == '-':
		return false
	}
	return true
}

// checkName is checkPath for one segment.
func checkName(field, name string, limit int) error {
	if name == "" || len(name) > limit || name[0] == '.' || strings.ContainsFunc(name, unusual) {
		return registry.Invalid(field, "1 to %d letters, digits and _ . -, not beginning with a dot", limit)
	}
	return nil
}
