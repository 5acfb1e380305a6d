package leaky

import (
	_ "embed" // the description
)

// Description says what to try with the service: base_url and the files of the
// tokens are to be replaced.
//
//go:embed description.yaml
var Description string
