package keys

import (
	"context"
	"errors"
	"fmt"

	"github.com/tenantbroker/tenantbroker/store/registry"
)

// KeyRecovered is the type of the record of a private part that was found again.
const KeyRecovered = "key.recovered"

// recoverRows finds keys again whose rows are gone or can't be read, where their
// home knows them by their public part. The caller holds mu and has refreshed.
//
// A row that is gone is damage, never a decision: what takes the right to sign
// away changes the ring in the same commit.
func (m *Manager) recoverRows(ctx context.Context) error {
	var problems error
	found := make(map[string]keyRow)
	st := m.state().stored
	for kid, part := range st.private {
		k, _ := st.ring.Find(kid)
		home, ok := m.homes[k.Home].(Series)
		if part.err == nil || !ok {
			continue
		}
		key, err := home.Find(ctx, st.public[kid])
		switch {
		case errors.Is(err, ErrLost): // nothing to recover: it stays broken
		case err != nil:
			problems = errors.Join(problems, fmt.Errorf("keys: find %s again: %w", kid, err))
		default:
			found[kid] = keyRow{Form: rowForm, Algorithm: k.Algorithm, Home: k.Home, Sealed: key.Blob}
		}
	}
	if len(found) == 0 {
		return problems
	}
	err := m.try(ctx, func() (*plan, error) {
		p := m.plan(registry.By{})
		for kid, row := range found {
			// Decided anew: the key may have stopped meanwhile.
			if part, ok := p.from.private[kid]; ok && part.err != nil {
				p.found[kid] = row
				p.changes = append(p.changes, Change{KeyRecovered, kid, "its row was lost; its home has the key"})
			}
		}
		return p, nil
	})
	return errors.Join(problems, err)
}
