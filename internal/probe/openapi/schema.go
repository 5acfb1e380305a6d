package openapi

import (
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// Bounds of one walk through schemas, which may contain themselves.
const (
	walkDepth = 12
	walkSteps = 2000
)

// walk counts what one look at schemas costs.
type walk struct{ left int }

func newWalk() *walk { return &walk{left: walkSteps} }

func (w *walk) done(s *openapi3.SchemaRef, depth int) bool {
	w.left--
	return s == nil || s.Value == nil || depth > walkDepth || w.left < 0
}

// shape is what an object's schema says, with all that it is put together of.
type shape struct {
	properties map[string]*openapi3.SchemaRef
	required   map[string]bool
}

func shapeOf(s *openapi3.SchemaRef) shape {
	all := shape{map[string]*openapi3.SchemaRef{}, map[string]bool{}}
	newWalk().shape(s, 0, all)
	return all
}

func (w *walk) shape(s *openapi3.SchemaRef, depth int, into shape) {
	if w.done(s, depth) {
		return
	}
	maps.Copy(into.properties, s.Value.Properties)
	for _, name := range s.Value.Required {
		into.required[name] = true
	}
	for _, part := range s.Value.AllOf {
		w.shape(part, depth+1, into)
	}
	for _, choice := range []openapi3.SchemaRefs{s.Value.OneOf, s.Value.AnyOf} {
		if len(choice) > 0 {
			w.shape(choice[0], depth+1, into) // one that is allowed
		}
	}
}

func (s shape) names() []string { return slices.Sorted(maps.Keys(s.properties)) }

func (s shape) has(name string) bool { return s.properties[name] != nil }

// mentioned are the names of all schemas that an answer is made of.
func mentioned(s *openapi3.SchemaRef) map[string]bool {
	all := make(map[string]bool)
	newWalk().mentioned(s, 0, all, map[*openapi3.Schema]bool{})
	return all
}

func (w *walk) mentioned(s *openapi3.SchemaRef, depth int, into map[string]bool, seen map[*openapi3.Schema]bool) {
	if w.done(s, depth) {
		return
	}
	if s.Ref != "" {
		into[s.Ref] = true
	}
	if seen[s.Value] {
		return
	}
	seen[s.Value] = true
	for _, name := range slices.Sorted(maps.Keys(s.Value.Properties)) {
		w.mentioned(s.Value.Properties[name], depth+1, into, seen)
	}
	w.mentioned(s.Value.Items, depth+1, into, seen)
	for _, parts := range []openapi3.SchemaRefs{s.Value.AllOf, s.Value.OneOf, s.Value.AnyOf} {
		for _, part := range parts {
			w.mentioned(part, depth+1, into, seen)
		}
	}
}

// is reports whether a schema is of a type, or of it and null.
func is(s *openapi3.SchemaRef, kind string) bool {
	if s == nil || s.Value == nil {
		return false
	}
	return s.Value.Type.Includes(kind)
}

// wordLength is how long the values are that a probe puts into what it makes.
const wordLength = 25

// free reports whether any text goes where a schema is: then a value can be put
// there that is nowhere else.
func free(s *openapi3.SchemaRef) bool {
	if !is(s, "string") || s.Value.ReadOnly || s.Value.Pattern != "" || s.Value.Format != "" || len(s.Value.Enum) > 0 || s.Value.Const != nil {
		return false
	}
	return s.Value.MinLength <= wordLength && (s.Value.MaxLength == nil || *s.Value.MaxLength >= wordLength)
}

// example is a value that a schema allows, from what it says of examples, or one
// that is made up.
func example(s *openapi3.SchemaRef) any { return newWalk().example(s, 0) }

func (w *walk) example(s *openapi3.SchemaRef, depth int) any {
	if w.done(s, depth) {
		return nil
	}
	v := s.Value
	switch {
	case v.Example != nil:
		return v.Example
	case len(v.Examples) > 0:
		return v.Examples[0]
	case v.Default != nil:
		return v.Default
	case v.Const != nil:
		return v.Const
	case len(v.Enum) > 0:
		return v.Enum[0]
	case is(s, "string"):
		return text(v)
	case is(s, "integer"), is(s, "number"):
		if v.Min != nil {
			return *v.Min + 1
		}
		return 1
	case is(s, "boolean"):
		return true
	case is(s, "array"):
		if v.MinItems == 0 {
			return []any{}
		}
		return []any{w.example(v.Items, depth+1)}
	}
	return w.object(s, depth)
}

// object is one of what an object has to have.
func (w *walk) object(s *openapi3.SchemaRef, depth int) any {
	all := map[string]any{}
	of := shapeOf(s)
	for _, name := range of.names() {
		if p := of.properties[name]; of.required[name] && p != nil && p.Value != nil && !p.Value.ReadOnly {
			all[name] = w.example(p, depth+1)
		}
	}
	return all
}

// text is a string of a format, of a length that is allowed.
func text(s *openapi3.Schema) string {
	switch s.Format {
	case "date-time":
		return "2026-01-01T00:00:00Z"
	case "date":
		return "2026-01-01"
	case "uuid":
		return "3f1c0f7e-52a5-4a31-9f0d-2f6d4d1c8a55"
	case "email":
		return "probe@example.com"
	case "uri", "url":
		return "https://example.com/probe"
	}
	t := "probe"
	if s.MinLength > uint64(len(t)) {
		t += strings.Repeat("e", int(min(s.MinLength, 1024))-len(t))
	}
	if s.MaxLength != nil && *s.MaxLength < uint64(len(t)) {
		t = t[:*s.MaxLength]
	}
	return t
}

// unbraced takes away what the description would take for names in braces, and
// numbers that are whole for what they are.
func unbraced(v any, depth int) any {
	if depth > walkDepth {
		return nil
	}
	switch v := v.(type) {
	case string:
		return strings.NewReplacer("{", "(", "}", ")").Replace(v)
	case float64:
		if whole := int64(v); float64(whole) == v && v > -1e15 && v < 1e15 {
			return whole
		}
		return v
	case []any:
		all := make([]any, len(v))
		for i, item := range v {
			all[i] = unbraced(item, depth+1)
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(v))
		for name, item := range v {
			all[name] = unbraced(item, depth+1)
		}
		return all
	}
	return v
}
