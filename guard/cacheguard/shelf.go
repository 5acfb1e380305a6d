package cacheguard

import (
	"container/list"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// held is a value that knows whose it is.
type held[V any] struct {
	tenant credential.Tenant
	value  V
	ends   time.Time
}

// shelf holds values in the order of their use, twice: over all, and by tenant.
// It has no lock of its own.
type shelf[V any] struct {
	most, share int // values: of all, of one tenant
	places      map[string]*place[V]
	all         list.List
	own         map[credential.Tenant]*list.List
}

// place is where a value is; both lists have the latest used in front.
type place[V any] struct {
	key          string
	held         held[V]
	inAll, inOwn *list.Element
}

func newShelf[V any](most, share int) *shelf[V] {
	return &shelf[V]{most: most, share: share, places: make(map[string]*place[V]), own: make(map[credential.Tenant]*list.List)}
}

func (s *shelf[V]) get(key string) (held[V], bool) {
	p := s.places[key]
	if p == nil {
		return held[V]{}, false
	}
	s.all.MoveToFront(p.inAll)
	s.own[p.held.tenant].MoveToFront(p.inOwn)
	return p.held, true
}

// add makes room first. A tenant that has its share makes it among its own, so
// what it reads in a row costs the others nothing more.
func (s *shelf[V]) add(key string, h held[V]) {
	s.remove(key)
	own := s.own[h.tenant]
	switch {
	case own != nil && own.Len() >= s.share:
		s.drop(own.Back())
	case s.all.Len() >= s.most:
		s.drop(s.all.Back())
	}
	if own = s.own[h.tenant]; own == nil {
		own = list.New()
		s.own[h.tenant] = own
	}
	p := &place[V]{key: key, held: h}
	p.inAll, p.inOwn = s.all.PushFront(p), own.PushFront(p)
	s.places[key] = p
}

func (s *shelf[V]) drop(last *list.Element) {
	if p, is := last.Value.(*place[V]); is {
		s.remove(p.key)
	}
}

func (s *shelf[V]) remove(key string) {
	p := s.places[key]
	if p == nil {
		return
	}
	delete(s.places, key)
	s.all.Remove(p.inAll)
	own := s.own[p.held.tenant]
	if own.Remove(p.inOwn); own.Len() == 0 {
		delete(s.own, p.held.tenant) // as many lists as there are tenants with values
	}
}

func (s *shelf[V]) len() int { return s.all.Len() }
