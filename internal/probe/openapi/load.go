package openapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/tenantbroker/tenantbroker/internal/probe/strictyaml"
)

// Bounds of a document.
const (
	MaxDocument = 4 << 20 // bytes
	MaxPaths    = 1000
	maxNodes    = 200_000 // values, keys too
	maxDepth    = 64      // of mappings and lists
	maxKeys     = 2000    // of one mapping
)

// load reads a document within the bounds, JSON or YAML.
func load(data []byte) (*openapi3.T, error) {
	limits := strictyaml.Limits{Bytes: MaxDocument, Nodes: maxNodes, Depth: maxDepth, Keys: maxKeys, Aliases: true}
	if len(data) <= limits.Bytes {
		data = plain(data)
	}
	if err := strictyaml.Check(data, limits); err != nil {
		return nil, fmt.Errorf("openapi: the document: %w", err)
	}
	// A loader as it is made reads no other document.
	document, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		return nil, fmt.Errorf("openapi: the document (references to others are not followed): %w", err)
	}
	switch {
	case !strings.HasPrefix(document.OpenAPI, "3.0.") && !strings.HasPrefix(document.OpenAPI, "3.1."):
		return nil, fmt.Errorf("openapi: the document is version %.20q, and 3.0 and 3.1 are read", document.OpenAPI)
	case document.Paths.Len() == 0:
		return nil, errors.New("openapi: the document has no paths")
	case document.Paths.Len() > MaxPaths:
		return nil, fmt.Errorf("openapi: over %d paths", MaxPaths)
	}
	return document, nil
}

// plain writes JSON so that it is YAML too: JSON may be indented with tabs, and
// write letters in two halves.
func plain(data []byte) []byte {
	var document any
	if json.Unmarshal(data, &document) != nil {
		return data
	}
	again, err := json.Marshal(document)
	if err != nil {
		return data
	}
	return again
}
