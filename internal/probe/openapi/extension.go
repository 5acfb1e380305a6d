package openapi

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/strictyaml"
)

// extensionName is the member of an operation that completes what is derived, and
// of a property's schema that says which value goes there.
const extensionName = "x-tenantbroker-probe"

// extension is what an operation says of itself to the probe.
type extension struct {
	// Skip leaves the operation out.
	Skip bool `yaml:"skip"`
	// Object is the name of the kind of object that it is about.
	Object string `yaml:"object"`
	// Attempts take the place of the one that would be derived. Where one has no
	// request, it is the operation's own.
	Attempts []probe.Attempt `yaml:"attempts"`
	// Control, Changes and Settle go to the attempt that is derived.
	Control *bool         `yaml:"control"`
	Changes *bool         `yaml:"changes"`
	Settle  time.Duration `yaml:"settle"`
	// Shared and Reveals are for the operation that reads an object.
	Shared  *bool    `yaml:"shared"`
	Reveals []string `yaml:"reveals"`
}

func extensionOf(members map[string]any) (extension, error) {
	var e extension
	is, ok := members[extensionName]
	if !ok {
		return e, nil
	}
	text, err := json.Marshal(is)
	if err == nil {
		err = strictyaml.Decode(text, strictyaml.Limits{Bytes: probe.MaxDescription, Nodes: maxNodes, Depth: maxDepth, Keys: maxKeys}, &e)
	}
	if err != nil {
		return e, fmt.Errorf("%s: %w", extensionName, err)
	}
	return e, nil
}

// placed is the value that a property asks for: witness, marker, tenant or none.
func placed(members map[string]any) string {
	text, _ := members[extensionName].(string)
	return text
}
