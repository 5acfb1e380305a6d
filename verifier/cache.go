package verifier

import (
	"crypto/sha256"
	"sync"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// shards spread the lock; a power of two.
const shards = 16

type digest = [sha256.Size]byte

// entry is a verified token and the key that verified it.
type entry struct {
	token *Token
	key   jwks.Key
}

// cache remembers verified tokens by the SHA-256 of their raw form, the least
// recently used leaving first. A nil cache remembers nothing.
type cache struct {
	shards [shards]shard
}

// newCache returns a cache of about size tokens, nil when size is negative.
func newCache(size int) *cache {
	if size < 0 {
		return nil
	}
	c := new(cache)
	for i := range c.shards {
		s := &c.shards[i]
		s.limit = max(1, size/shards)
		s.nodes = make(map[digest]*node)
		s.ring.next, s.ring.prev = &s.ring, &s.ring
	}
	return c
}

func (c *cache) get(d digest) (entry, bool) {
	if c == nil {
		return entry{}, false
	}
	return c.shards[d[0]%shards].get(d)
}

func (c *cache) add(d digest, e entry) {
	if c != nil {
		c.shards[d[0]%shards].add(d, e)
	}
}

// shard is one part of the cache: a map into a ring in order of use, newest
// after the ring's head.
type shard struct {
	mu    sync.Mutex
	limit int
	nodes map[digest]*node
	ring  node
}

type node struct {
	next, prev *node
	digest     digest
	entry      entry
}

func (s *shard) get(d digest) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.nodes[d]
	if !ok {
		return entry{}, false
	}
	n.unlink()
	s.front(n)
	return n.entry, true
}

func (s *shard) add(d digest, e entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.nodes[d]
	switch {
	case ok:
		n.unlink()
	case len(s.nodes) >= s.limit:
		n = s.ring.prev // the oldest makes room, and its node is used again
		n.unlink()
		delete(s.nodes, n.digest)
	default:
		n = new(node)
	}
	n.digest, n.entry = d, e
	s.nodes[d] = n
	s.front(n)
}

func (s *shard) front(n *node) {
	n.next, n.prev = s.ring.next, &s.ring
	n.next.prev, s.ring.next = n, n
}

func (n *node) unlink() {
	n.prev.next, n.next.prev = n.next, n.prev
}
