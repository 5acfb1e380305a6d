package verifier

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// What DefaultEntries says of memory, with the longest ids there can be.
func TestAFollowersMemoryIsBounded(t *testing.T) {
	const most = 60_000_000 // bytes
	k := new(known)
	k.init(DefaultEntries)
	before := heapInUse()
	for from := 0; from < DefaultEntries; from += 5000 {
		answer := &feed{complete: from == 0, seq: uint64(from + 1)}
		for n := range 5000 {
			answer.tokens = append(answer.tokens, fmt.Sprintf("%0*d", maxFeedID, from+n))
		}
		k.learn(answer, time.Unix(1e9, 0), 0, time.Unix(1e9, 0))
	}
	if n := k.count(); n != DefaultEntries || k.dropped {
		t.Fatalf("%d entries", n)
	}
	used := heapInUse() - before
	t.Logf("%d bytes", used)
	if used > most || used < DefaultEntries*maxFeedID {
		t.Errorf("%d bytes, %d at most", used, most)
	}
	runtime.KeepAlive(k)
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
