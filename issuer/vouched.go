package issuer

import (
	"crypto/sha256"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
)

// Bounds of the memory of verified platform JWTs.
const (
	vouchedFor   = 10 * time.Minute // and never longer than the JWT lives
	vouchedCount = 8192
	vouchedSize  = 8 << 10 // a longer JWT, in bytes, is verified every time
)

// vouched is a platform's JWT whose signature, audience and form were checked
// against one version of its issuer's row. What may change without the row,
// the key and the time, is checked again whenever it is recalled; so is all
// that it leads to, the account and its grants.
type vouched struct {
	issuer     string // id of the trusted issuer
	version    uint64 // of its row
	kid        string // what the JWT asked for
	key        jwks.Key
	registered jwtClaims
	claims     func() (policy.Claims, error) // all of them, for CEL; read once

	until time.Time // when it is forgotten
}

// vouchedCache remembers verified platform JWTs by their digest; it holds no
// token.
type vouchedCache struct {
	entries *lru.Cache[[sha256.Size]byte, *vouched]
}

func newVouchedCache() *vouchedCache {
	entries, err := lru.New[[sha256.Size]byte, *vouched](vouchedCount)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &vouchedCache{entries}
}

// vouchedKey tells apart the two ways in which a JWT's issuer is found.
func vouchedKey(p *proof) [sha256.Size]byte {
	b := make([]byte, 0, 2048)
	if p.spiffe {
		b = append(b, '+')
	}
	return sha256.Sum256(append(b, p.token...))
}

func (c *vouchedCache) add(p *proof, v *vouched, now time.Time) {
	v.until = v.registered.expires
	if limit := now.Add(vouchedFor); limit.Before(v.until) {
		v.until = limit
	}
	if len(p.token) <= vouchedSize && now.Before(v.until) {
		c.entries.Add(vouchedKey(p), v)
	}
}

func (c *vouchedCache) get(p *proof, now time.Time) *vouched {
	if len(p.token) > vouchedSize || c.entries.Len() == 0 {
		return nil
	}
	v, ok := c.entries.Get(vouchedKey(p))
	if !ok {
		return nil
	}
	if !now.Before(v.until) {
		c.drop(p)
		return nil
	}
	return v
}

func (c *vouchedCache) drop(p *proof) { c.entries.Remove(vouchedKey(p)) }
