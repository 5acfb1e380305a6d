package leaky

import (
	_ "embed" // the description
)

// Description says what to try with the service: base_url and the files of the
// tokens are to be replaced.
//
//go:embed description.yaml
var Description string

// OpenAPI is the service's own document, as a service would have it: with what no
// document can say of attempts in x-tenantbroker-probe.
//
//go:embed openapi.yaml
var OpenAPI string
