package probe

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Forge are headers, parameters of the query and members of the body of a create
// that name a tenant.
type Forge struct {
	Headers []string `yaml:"headers"`
	Query   []string `yaml:"query"`
	Body    []string `yaml:"body"`
}

func defaultForge() *Forge {
	return &Forge{Headers: []string{"X-Tenant", "X-Tenant-Id"}, Body: []string{"tenant", "tenant_id"}}
}

func (f *Forge) check() error {
	if len(f.Headers)+len(f.Query)+len(f.Body) > MaxSteps {
		return fmt.Errorf("over %d places", MaxSteps)
	}
	for _, name := range f.Headers {
		if err := checkHeader(name, ""); err != nil {
			return err
		}
	}
	for _, name := range append(slices.Clone(f.Query), f.Body...) {
		if name == "" || len(name) > maxForged || strings.ContainsFunc(name, unicode.IsControl) {
			return fmt.Errorf("%.70q is not a name of 1 to %d bytes in one line", name, maxForged)
		}
	}
	return nil
}
