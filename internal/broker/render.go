package broker

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Render writes a document as a commented configuration file: what differs
// from the default as it is, everything else commented out with its default.
func Render(d Document) []byte {
	var b strings.Builder
	b.WriteString("# Configuration of the broker. A key that is absent, or commented out as\n" +
		"# below, has the value shown. Each can be set by an environment variable too:\n" +
		"# " + prefix + " and the key in capitals, its parts joined by _, e.g.\n" +
		"# " + variableName("tls.cert_file") + ". File names count from this file's folder.\n")
	preset := Default()
	renderPart(&b, reflect.ValueOf(d), reflect.ValueOf(preset), "")
	return []byte(b.String())
}

func renderPart(b *strings.Builder, part, preset reflect.Value, indent string) {
	for i := range part.NumField() {
		field, v, p := part.Type().Field(i), part.Field(i), preset.Field(i)
		name := field.Tag.Get("yaml")
		if v.Kind() == reflect.Struct {
			// Never commented out: a key below it can then be switched on alone.
			fmt.Fprintf(b, "\n%s:\n", name)
			renderPart(b, v, p, "  ")
			continue
		}
		off := ""
		if v.Interface() == p.Interface() {
			off = "# "
		}
		if indent == "" {
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "%s# %s\n%s%s%s: %s\n", indent, field.Tag.Get("help"), indent, off, name, scalar(v.Interface()))
	}
}

func scalar(v any) string {
	if d, ok := v.(time.Duration); ok {
		return short(d)
	}
	text, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(string(text))
}

// short is a duration without the zeros that time.Duration adds: 720h, 5m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
