package secrets

import "github.com/tenantbroker/tenantbroker/credential"

// queue holds the ids of secrets that wait for a driver. Tenants take turns, so
// that one who rotates a thousand secrets delays no other's; what is of no
// tenant, or not known yet, has a turn of its own.
type queue struct {
	of    map[credential.Tenant][]string
	turns []credential.Tenant // those with something in the queue, the next first
	n     int
}

func (q *queue) push(of credential.Tenant, id string) {
	if q.of == nil {
		q.of = make(map[credential.Tenant][]string)
	}
	if len(q.of[of]) == 0 {
		q.turns = append(q.turns, of)
	}
	q.of[of] = append(q.of[of], id)
	q.n++
}

// pop returns the next of the tenant whose turn it is. There must be one.
func (q *queue) pop() string {
	of := q.turns[0]
	q.turns = q.turns[1:]
	id := q.of[of][0]
	if q.of[of] = q.of[of][1:]; len(q.of[of]) > 0 {
		q.turns = append(q.turns, of)
	} else {
		delete(q.of, of)
	}
	q.n--
	return id
}
