// Package strictyaml reads YAML that somebody wrote by hand, and refuses what
// costs more to read than it is long: aliases, which multiply what they stand
// for, and mappings whose keys the decoder compares each with each.
//
// Everything is looked at as nodes first, which takes a time in proportion to
// the length; only what is within the Limits is decoded.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// Limits bound one document. All numbers are required.
type Limits struct {
	Bytes int // of the document
	Nodes int // mappings, lists and values, keys too
	Depth int // of mappings and lists within each other
	Keys  int // of one mapping: the decoder's time grows with their square
	// Aliases lets what others wrote, with another tool, have anchors, aliases and
	// merges. Each alias counts as all that it stands for.
	Aliases bool
}

// ErrTooLarge means: beyond one of the Limits, which the text of the error names.
var ErrTooLarge = errors.New("too large")

// Decode reads exactly one document into a value. It refuses fields that the
// value does not have, anchors, aliases, merges and keys that are there twice.
func Decode(data []byte, l Limits, into any) error {
	if err := Check(data, l); err != nil {
		return err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	return decoder.Decode(into)
}

// Check holds one document to the limits without decoding it.
func Check(data []byte, l Limits) error {
	if len(data) > l.Bytes {
		return fmt.Errorf("%w: over %d bytes", ErrTooLarge, l.Bytes)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("nothing is in it")
		}
		return err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("it is more than one document")
	}
	left := l.Nodes
	return check(&document, l, 0, &left)
}

func check(n *yaml.Node, l Limits, depth int, left *int) error {
	*left--
	switch {
	case *left < 0:
		return fmt.Errorf("%w: over %d values", ErrTooLarge, l.Nodes)
	case depth > l.Depth:
		return fmt.Errorf("%w: line %d: nested deeper than %d", ErrTooLarge, n.Line, l.Depth)
	case !l.Aliases && (n.Kind == yaml.AliasNode || n.Anchor != ""):
		return fmt.Errorf("line %d: anchors and aliases are not taken: write it out", n.Line)
	}
	if n.Kind == yaml.AliasNode {
		return check(n.Alias, l, depth+1, left) // one within itself ends at the depth
	}
	if n.Kind == yaml.MappingNode {
		if err := checkKeys(n, l); err != nil {
			return err
		}
	}
	for _, child := range n.Content {
		if err := check(child, l, depth+1, left); err != nil {
			return err
		}
	}
	return nil
}

// checkKeys takes keys that are text or numbers, each once.
func checkKeys(n *yaml.Node, l Limits) error {
	if len(n.Content)/2 > l.Keys {
		return fmt.Errorf("%w: line %d: over %d keys in one mapping", ErrTooLarge, n.Line, l.Keys)
	}
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode && key.Kind != yaml.AliasNode:
			return fmt.Errorf("line %d: a key is neither text nor a number", key.Line)
		case key.Tag == "!!merge" && !l.Aliases:
			return fmt.Errorf("line %d: merges are not taken: write it out", key.Line)
		case seen[key.Value]:
			return fmt.Errorf("line %d: the key %.40q is there twice", key.Line, key.Value)
		}
		seen[key.Value] = true
	}
	return nil
}
