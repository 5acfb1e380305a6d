package registry

import (
	"errors"
	"fmt"

	"github.com/tenantbroker/tenantbroker/store"
)

// indexRow is a row that an object implies. What an object implies is computed
// by one function per type, and a change writes the difference, so that the
// derived tables can't drift from the objects.
type indexRow struct {
	table store.Table
	key   string
	value string
}

// unique says what it means when a derived row exists already for somebody
// else. Rows of other tables hold their object's id in the key.
var unique = map[store.Table]string{
	accountKeys: "this key is registered already",
	subjects:    "this subject of that issuer has an account already",
	issuerURLs:  "this issuer URL",
}

// reindex turns the derived rows of old into those of next.
func (c *change) reindex(old, next []indexRow) error {
	type place struct {
		table store.Table
		key   string
	}
	have := make(map[place]string, len(old))
	for _, r := range old {
		have[place{r.table, r.key}] = r.value
	}
	for _, r := range next {
		value, had := have[place{r.table, r.key}]
		delete(have, place{r.table, r.key})
		if had && value == r.value {
			continue
		}
		if err := c.putIndex(r, had); err != nil {
			return err
		}
	}
	for p := range have {
		if err := c.drop(p.table, p.key); err != nil {
			return fmt.Errorf("registry: index %s: %w", p.table, err)
		}
	}
	return nil
}

func (c *change) putIndex(r indexRow, replace bool) error {
	var version uint64
	if replace {
		row, err := c.Get(r.table, r.key)
		if err != nil {
			return fmt.Errorf("registry: index %s: %w", r.table, err)
		}
		version = row.Version
	}
	_, err := c.Put(r.table, r.key, []byte(r.value), version)
	if errors.Is(err, ErrChanged) {
		if what, ok := unique[r.table]; ok {
			return fmt.Errorf("%w: %s", ErrExists, what)
		}
	}
	return err
}

// anyRow reports whether a table has a row under prefix.
func anyRow(r store.Reader, t store.Table, prefix string) (bool, error) {
	for _, err := range r.Scan(t, prefix, "") {
		return err == nil, err
	}
	return false, nil
}

// idsUnder lists the objects whose ids end the keys under parts. It is read to
// its end before anything else is asked: one question at a time is all that a
// server's session takes.
func idsUnder(r store.Reader, t store.Table, parts ...string) ([]string, error) {
	var found []string
	for row, err := range r.Scan(t, under(parts...), "") {
		if err != nil {
			return nil, err
		}
		found = append(found, lastPart(row.Key))
	}
	return found, nil
}

// countRows counts rows under prefix, up to limit.
func countRows(r store.Reader, t store.Table, prefix string, limit int) (int, error) {
	n := 0
	for _, err := range r.Scan(t, prefix, "") {
		if err != nil {
			return 0, err
		}
		if n++; n >= limit {
			break
		}
	}
	return n, nil
}

// under is the prefix of all keys whose first parts are these.
func under(parts ...string) string { return store.Key(parts...) + "\x00" }
