package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
)

// argument parses an argument; an error is one of usage.
func argument[T any](text string, parse func(string) (T, error)) (T, error) {
	v, err := parse(text)
	if err != nil {
		return v, usageError{err}
	}
	return v, nil
}

// asText is the parser of ids that the broker assigns.
func asText(s string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("an id can't be empty")
	}
	return s, nil
}

// show prints the outcome of a call.
func show(a *app) func(object any, err error) error {
	return func(object any, err error) error {
		if err != nil {
			return err
		}
		return a.printObject(object)
	}
}

// patch collects the members of a merge patch from the flags that were given.
type patch struct {
	command *cobra.Command
	members wire.Patch
}

func newPatch(c *cobra.Command, reason string) *patch {
	return &patch{c, wire.Patch{"reason": reason}}
}

func (p *patch) set(flag, member string, value any) {
	if p.command.Flags().Changed(flag) {
		p.members[member] = value
	}
}

// check refuses a patch that changes nothing.
func (p *patch) check() error {
	if len(p.members) == 1 {
		return usageError{errNothing}
	}
	return nil
}

// basis is the version that a change is based on: the one that was given, or
// the current one.
func basis[T any](given uint64, get func() (*T, error), version func(*T) uint64) (uint64, error) {
	if given != 0 {
		return given, nil
	}
	object, err := get()
	if err != nil {
		return 0, err
	}
	return version(object), nil
}

// deletion is a command that removes an object, after asking.
func deletion[I fmt.Stringer](a *app, noun, argumentName, example, long string, parse func(string) (I, error),
	remove func(context.Context, *client.Admin, I, uint64, string) error) *cobra.Command {
	var reason string
	var version uint64
	var yes bool
	c := &cobra.Command{
		Use: "delete " + argumentName + " --reason WHY", Short: "Delete a" + article(noun) + " " + noun, Long: long,
		Example: fmt.Sprintf("  brokerctl %s delete %s --reason \"no longer needed\"", noun, example),
		Args:    cobra.ExactArgs(1),
	}
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	yesFlag(c, &yes)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], parse)
		if err != nil {
			return err
		}
		if err := a.confirm(yes, fmt.Sprintf("This deletes the %s %s for good.", noun, id), id.String()); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			if err := remove(ctx, admin, id, version, reason); err != nil {
				return err
			}
			return a.done(gone{noun, id.String(), "deleted"}, "deleted %s %s", noun, id)
		})
	})
	return c
}

// gone is what is left to say of an object.
type gone struct {
	Kind  string `json:"kind"`
	ID    string `json:"id"`
	State string `json:"state"`
}

func article(noun string) string {
	switch noun[0] {
	case 'a', 'e', 'i', 'o', 'u':
		return "n"
	}
	return ""
}

// textID is an id that the broker assigned, such as a grant's.
type textID string

func (t textID) String() string { return string(t) }

func parseTextID(s string) (textID, error) {
	s, err := asText(s)
	return textID(s), err
}
