package pglease

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/api/client"
)

// Pool is a pool of one tenant's connections. Nothing is shared with another
// tenant's: a process that works for several has a pool for each.
type Pool struct {
	*pgxpool.Pool
	login atomic.Pointer[login]
}

type login struct{ user, password string }

// errNoLease: connections are wanted, and no lease was handed over yet.
var errNoLease = errors.New("pglease: there is no lease yet")

// New makes a pool that connects when Changed has brought the first lease. User
// and password in config count for nothing.
func New(ctx context.Context, config *pgxpool.Config) (*Pool, error) {
	p := &Pool{}
	config = config.Copy()
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		now := p.login.Load()
		if now == nil {
			return errNoLease
		}
		c.User, c.Password = now.user, now.password
		return nil
	}
	var err error
	p.Pool, err = pgxpool.NewWithConfig(ctx, config)
	return p, err
}

// Changed is for client.Keeping: from now on connections are made as the new
// user. Those of the user before end as they are given back, which a statement
// has the rest of that lease's life for: a third, at least.
func (p *Pool) Changed(_ context.Context, l *client.Lease) error {
	user, password, err := l.Login()
	if err != nil {
		return err
	}
	if before := p.login.Swap(&login{user, password}); before != nil {
		p.Reset()
	}
	return nil
}
