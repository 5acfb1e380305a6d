package registry_test

import (
	"iter"

	"github.com/tenantbroker/tenantbroker/store"
)

// counter counts the rows that are read through it.
type counter struct {
	store.Reader
	rows int
}

func (c *counter) Get(t store.Table, key string) (store.Row, error) {
	c.rows++
	return c.Reader.Get(t, key)
}

func (c *counter) Scan(t store.Table, prefix, after string) iter.Seq2[store.Row, error] {
	return func(yield func(store.Row, error) bool) {
		for row, err := range c.Reader.Scan(t, prefix, after) {
			c.rows++
			if !yield(row, err) {
				return
			}
		}
	}
}
