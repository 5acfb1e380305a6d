package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf16"

	"go.yaml.in/yaml/v3"
)

// The forms of output.
const (
	outputTable = "table"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

// columns is how a list of T is shown as a table.
type columns[T any] struct {
	names []string
	row   func(T) []string
}

// printList writes a list: a table as the items come, or one JSON or YAML array.
func printList[T any](a *app, items iter.Seq2[T, error], c columns[T]) error {
	if a.output != outputTable {
		all := []T{}
		for item, err := range items {
			if err != nil {
				return err
			}
			all = append(all, item)
		}
		return a.printData(all)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	rows := 0
	for item, err := range items {
		if err != nil {
			_ = w.Flush() // what came before the error
			return err
		}
		if rows == 0 {
			writeRow(w, c.names)
		}
		writeRow(w, c.row(item))
		rows++
	}
	if rows == 0 {
		a.note("none")
	}
	return w.Flush()
}

func writeRow(w io.Writer, cells []string) {
	for i, c := range cells {
		c = printable(strings.Join(strings.Fields(c), " "))
		if c == "" {
			c = "-"
		}
		if i > 0 {
			c = "\t" + c
		}
		_, _ = io.WriteString(w, c) // a tabwriter fails in Flush
	}
	_, _ = io.WriteString(w, "\n")
}

// printObject writes one object: name and value of each member for people.
func (a *app) printObject(v any) error {
	if a.output != outputTable {
		return a.printData(v)
	}
	node, err := toNode(v)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	flatten(node, "", func(name, value string) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", printable(name), printable(value)) // a tabwriter fails in Flush
	})
	return w.Flush()
}

// printData writes v as JSON or YAML, members in the order of the wire types.
func (a *app) printData(v any) error {
	data, err := marshal(v, jsonEscape)
	if err != nil {
		return err
	}
	if a.output == outputYAML {
		node, err := toNode(v)
		if err != nil {
			return err
		}
		if data, err = yaml.Marshal(node); err != nil {
			return err
		}
		data = escaped(data, yamlEscape)
	}
	_, err = a.out.Write(data)
	return err
}

// marshal writes JSON. What no terminal should be sent goes through escape;
// outside of strings there is none of it.
func marshal(v any, escape func(rune) string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return escaped(b.Bytes(), escape), nil
}

func escaped(data []byte, escape func(rune) string) []byte {
	if !bytes.ContainsFunc(data, unprintable) {
		return data
	}
	var out bytes.Buffer
	for _, r := range string(data) {
		if unprintable(r) {
			out.WriteString(escape(r))
		} else {
			out.WriteRune(r)
		}
	}
	return out.Bytes()
}

func jsonEscape(r rune) string {
	if r > 0xffff {
		high, low := utf16.EncodeRune(r)
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// yamlEscape differs for what lies beyond 16 bits.
func yamlEscape(r rune) string { return fmt.Sprintf(`\U%08x`, r) }

func unprintable(r rune) bool { return r != '\n' && !strconv.IsPrint(r) }

// toNode turns v into YAML by way of its JSON, which YAML contains but for
// escapes in pairs.
func toNode(v any) (*yaml.Node, error) {
	data, err := marshal(v, yamlEscape)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	node := doc.Content[0]
	plain(node)
	return node, nil
}

// plain drops the JSON look. What YAML would read as something else than a text
// is still quoted when it is written; what has to be escaped is quoted here.
func plain(n *yaml.Node) {
	n.Style = 0
	if strings.ContainsFunc(n.Value, unprintable) {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// flatten names every scalar of an object by its path.
func flatten(n *yaml.Node, path string, emit func(name, value string)) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i].Value
			if path != "" {
				name = path + "." + name
			}
			flatten(n.Content[i+1], name, emit)
		}
	case yaml.SequenceNode:
		texts := make([]string, 0, len(n.Content))
		for i, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				flatten(c, fmt.Sprintf("%s[%d]", path, i), emit)
				continue
			}
			texts = append(texts, c.Value)
		}
		if len(texts) > 0 || len(n.Content) == 0 {
			emit(path, cell(strings.Join(texts, " ")))
		}
	default:
		emit(path, cell(n.Value))
	}
}

func cell(s string) string {
	if s = strings.Join(strings.Fields(s), " "); s == "" {
		return "-"
	}
	return s
}

// when shows an instant in a table; none as "".
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// shortened cuts text for a table.
func shortened(s string, limit int) string {
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return s
}
