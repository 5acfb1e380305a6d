package vault

import (
	"context"
	"encoding/json"
	"net/http"
)

// Health is what Vault says of itself.
type Health struct {
	Initialized bool
	Sealed      bool
	Standby     bool // doesn't serve, or sends on to the active node
	Version     string
}

// Serving reports whether it takes calls.
func (h Health) Serving() bool { return h.Initialized && !h.Sealed && !h.Standby }

// Health asks Vault how it is, without a token. That it is sealed or a standby
// node is an answer and no error: what counts is the body, not the status,
// which a configuration of Vault can change.
func (c *Client) Health(ctx context.Context) (Health, error) {
	one := &call{op: opHealth, method: http.MethodGet, path: "sys/health"}
	start := c.core.now()
	out, err := c.send(ctx, one, "")
	var body struct {
		Initialized *bool  `json:"initialized"`
		Sealed      *bool  `json:"sealed"`
		Standby     *bool  `json:"standby"`
		Performance bool   `json:"performance_standby"` // serves reads, and sends on what it can't
		Version     string `json:"version"`
	}
	if out.status != 0 && json.Unmarshal(out.raw, &body) == nil && body.Initialized != nil && body.Sealed != nil && body.Standby != nil {
		err = nil
	} else if err == nil {
		err = unexpected(one, "not the health of a Vault")
	}
	c.core.metrics.observe(one.op, err, c.core.now().Sub(start))
	if err != nil {
		return Health{}, err
	}
	return Health{
		Initialized: *body.Initialized, Sealed: *body.Sealed, Standby: *body.Standby && !body.Performance, Version: printable(body.Version),
	}, nil
}
