package bolt

import (
	"bytes"
	"errors"
	"iter"
	"slices"
	"sort"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
)

// markEvery is how many records of one chain lie between two of its marks. A
// chain is read from mark to mark, backwards in between.
const markEvery = 256

var errLog = errors.New("store: damaged audit log")

// Log implements store.Reader.
func (r *reader) Log(after uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		cursor := r.tx.Bucket(bucketLog).Cursor()
		for key, value := cursor.Seek(putUint(nil, after+1)); key != nil; key, value = cursor.Next() {
			if len(key) != 8 || len(value) < 8 {
				yield(store.Entry{}, errLog)
				return
			}
			chain, err := audit.ChainOf(value[8:])
			if !yield(store.Entry{Position: getUint(key), Previous: getUint(value), Chain: chain, Raw: value[8:]}, err) || err != nil {
				return
			}
		}
	}
}

// LogEnd implements store.Reader.
func (r *reader) LogEnd() (uint64, error) { return r.tx.Bucket(bucketLog).Sequence(), nil }

// Chain implements store.Reader.
func (r *reader) Chain(c audit.Chain, seq uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		end, err := r.headOf(c)
		if err != nil {
			yield(store.Entry{}, err)
			return
		}
		marks := r.marksOf(c)
		for next := seq + 1; next <= end.seq; {
			last, position, err := marks.before(next, end)
			if err != nil {
				yield(store.Entry{}, err)
				return
			}
			found := make([]store.Entry, 0, min(markEvery, last-next+1))
			for entry, err := range r.back(c, position) {
				if err != nil {
					yield(store.Entry{}, err)
					return
				}
				found = append(found, entry)
				if last-next+1 == uint64(len(found)) {
					break
				}
			}
			for _, entry := range slices.Backward(found) {
				if !yield(entry, nil) {
					return
				}
			}
			next = last + 1
		}
	}
}

// ChainBack implements store.Reader.
func (r *reader) ChainBack(c audit.Chain, position uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		end, err := r.headOf(c)
		if err != nil {
			yield(store.Entry{}, err)
			return
		}
		from := end.position
		if from > position {
			if from, err = r.marksOf(c).after(position, end); err != nil {
				yield(store.Entry{}, err)
				return
			}
		}
		for entry, err := range r.back(c, from) {
			if (err != nil || entry.Position <= position) && !yield(entry, err) {
				return
			}
		}
	}
}

// back yields the record at position and those before it in its chain, as far
// as retention has left them.
func (r *reader) back(c audit.Chain, position uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		log := r.tx.Bucket(bucketLog)
		for value := log.Get(putUint(nil, position)); value != nil; value = log.Get(putUint(nil, position)) {
			before := getUint(value)
			if len(value) < 8 || before >= position {
				yield(store.Entry{}, errLog)
				return
			}
			if !yield(store.Entry{Position: position, Previous: before, Chain: c, Raw: value[8:]}, nil) {
				return
			}
			position = before
		}
	}
}

// chainMarks are the marks of one chain.
type chainMarks struct {
	log, marks *bbolt.Bucket
	prefix     []byte // of their keys; the number of the record follows
}

func (r *reader) marksOf(c audit.Chain) chainMarks {
	return chainMarks{r.tx.Bucket(bucketLog), r.tx.Bucket(bucketMarks), append([]byte(c.String()), 0)}
}

// seek returns the first mark from record seq on, which marks record at, and
// its position; ok is false if there is none.
func (m chainMarks) seek(seq uint64) (at, position uint64, ok bool) {
	key, value := m.marks.Cursor().Seek(putUint(bytes.Clone(m.prefix), seq))
	if !bytes.HasPrefix(key, m.prefix) || len(key) != len(m.prefix)+8 {
		return 0, 0, false
	}
	return getUint(key[len(m.prefix):]), getUint(value), true
}

// before returns the record, with its position, from which to read backwards
// to next: next itself if it is marked, the one before the next mark that is
// left, or the chain's newest.
func (m chainMarks) before(next uint64, end head) (seq, position uint64, err error) {
	at, position, ok := m.seek(next)
	if !ok {
		return end.seq, end.position, nil
	}
	if at == next {
		return at, position, nil
	}
	marked := m.log.Get(putUint(nil, position))
	if len(marked) < 8 {
		return 0, 0, errLog
	}
	return at - 1, getUint(marked), nil
}

// after returns the position of a record, a mark or the chain's newest, that
// stands after position and before which fewer than markEvery records of the
// chain do.
func (m chainMarks) after(position uint64, end head) (uint64, error) {
	oldest, _, ok := m.seek(0)
	if !ok {
		return end.position, nil
	}
	if oldest > end.seq {
		return 0, errLog
	}
	var failed error
	n := sort.Search(int((end.seq-oldest)/markEvery)+1, func(i int) bool { //nolint:gosec // counts
		seq := oldest + uint64(i)*markEvery //nolint:gosec // not negative
		at, marked, ok := m.seek(seq)
		if !ok || at != seq {
			failed = errLog
		}
		return marked > position
	})
	_, marked, ok := m.seek(oldest + uint64(n)*markEvery) //nolint:gosec // not negative
	if !ok {
		marked = end.position
	}
	return marked, failed
}
