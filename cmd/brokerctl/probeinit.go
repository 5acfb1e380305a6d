package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/internal/probe/openapi"
)

const probeInitText = `init writes a description for brokerctl probe, from the OpenAPI document (3.0 or
3.1, YAML or JSON) of a service, to stdout: its objects, how each is made, and an
attempt for each way out of the service that the document tells of.

Fill in base_url and the credentials, and look through it: at its end stands what
was not derived, and why. What the document can't say can be written there, or in
the document itself, in x-tenantbroker-probe of an operation:

  skip: true                    leave the operation out
  object: NAME                  the object that it is about, or what it is called
  attempts: [{name: …}, …]      instead of the one that would be derived; without
                                request, it is the operation's own
  control, changes, settle      of the attempt that is derived
  shared: true, reveals: […]    on the operation that reads an object

and x-tenantbroker-probe: witness (or marker, tenant) on a property's schema puts
that value there. References to other documents are not followed, and examples are
taken from the document: look for some that would do harm.`

func probeInitCommand(a *app) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "init --openapi FILE", Short: "Write a description from an OpenAPI document", Args: cobra.NoArgs,
		Long: probeInitText,
		Example: `  brokerctl probe init --openapi openapi.yaml > orders.yaml
  curl -s https://orders.example.com/openapi.json | brokerctl probe init --openapi - > orders.yaml`,
	}
	c.Flags().StringVar(&path, "openapi", "", "the document; - is stdin")
	_ = c.MarkFlagRequired("openapi") // fails for a flag that doesn't exist
	_ = c.MarkFlagFilename("openapi", "yaml", "yml", "json")
	c.RunE = a.does(func(context.Context, []string) error {
		data, err := a.readDocument(path)
		if err != nil {
			return err
		}
		draft, err := openapi.Derive(data)
		if errors.Is(err, openapi.ErrNothing) {
			for _, n := range draft.Notes {
				a.note("%s: %s", n.Where, n.Text)
			}
		}
		if err != nil {
			return usageError{fmt.Errorf("%s: %w", path, err)}
		}
		text, err := draft.YAML()
		if err != nil {
			return err
		}
		if _, err := a.out.Write(text); err != nil {
			return err
		}
		attempts := 0
		for _, o := range draft.Objects {
			attempts += len(o.Try)
		}
		a.note("%s, %s; %s at the end", several(len(draft.Objects), "object"), several(attempts, "attempt"), several(len(draft.Notes), "note"))
		return nil
	})
	return c
}

func (a *app) readDocument(path string) ([]byte, error) {
	from := a.in
	if path != "-" {
		file, err := os.Open(path) //nolint:gosec // the path is the user's own choice
		if err != nil {
			return nil, err
		}
		defer file.Close() //nolint:errcheck // nothing was written
		from = file
	}
	return io.ReadAll(io.LimitReader(from, openapi.MaxDocument+1))
}
