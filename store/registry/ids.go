package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// kind is a space of ids. Within one, no two ids are equal under case folding.
// All grammars are ASCII, so that folding is lower case.
type kind string

const (
	kindTenant   kind = "tenant"
	kindAccount  kind = "account"
	kindAudience kind = "audience"
	kindGrant    kind = "grant"
	kindIssuer   kind = "issuer"
	kindURL      kind = "issuer_url"
	kindSecret   kind = "secret"
)

// idRow says who has an id, or that somebody had it. Rows of tenants, accounts,
// grants and shared secrets stay for good (I9); that of a deleted audience until its name is
// registered again.
type idRow struct {
	ID      string               `json:"id"`
	Deleted time.Time            `json:"deleted,omitzero"`
	Owner   credential.AccountID `json:"owner,omitzero"` // of a deleted audience
}

func idKey(k kind, id string) string { return store.Key(string(k), strings.ToLower(id)) }

func readID(r store.Reader, k kind, id string) (idRow, store.Row, error) {
	row, err := r.Get(ids, idKey(k, id))
	if err != nil {
		return idRow{}, store.Row{}, err
	}
	var v idRow
	if err := json.Unmarshal(row.Value, &v); err != nil {
		return idRow{}, store.Row{}, fmt.Errorf("registry: stored id: %w", err)
	}
	return v, row, nil
}

// deleted reports whether the id belonged to an object that is gone.
func deleted(r store.Reader, k kind, id string) (bool, error) {
	v, _, err := readID(r, k, id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && !v.Deleted.IsZero(), err
}

// take reserves an id, or returns ErrExists.
func (c *change) take(k kind, id string) error {
	v, _, err := readID(c, k, id)
	switch {
	case errors.Is(err, ErrNotFound):
		_, err = c.write(ids, idKey(k, id), idRow{ID: id}, 0)
		return err
	case err != nil:
		return err
	case !v.Deleted.IsZero():
		return fmt.Errorf("%w: this %s id was deleted, and ids never come back", ErrExists, k)
	case v.ID != id:
		return fmt.Errorf("%w: this %s differs from another in case only", ErrExists, k)
	}
	return fmt.Errorf("%w: this %s", ErrExists, k)
}

// bury marks the id as one that never comes back.
func (c *change) bury(k kind, id string) error {
	row, err := c.Get(ids, idKey(k, id))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	_, err = c.write(ids, idKey(k, id), idRow{ID: id, Deleted: c.at}, row.Version)
	return err
}

// free gives an id back, where the kind allows that.
func (c *change) free(k kind, id string) error { return c.drop(ids, idKey(k, id)) }

// drop removes a row whatever its version.
func (c *change) drop(t store.Table, key string) error {
	row, err := c.Get(t, key)
	if err != nil {
		return err
	}
	return c.Delete(t, key, row.Version)
}
