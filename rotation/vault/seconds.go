package vault

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// seconds is a time span as Vault writes it: a number, mostly.
type seconds time.Duration

// UnmarshalJSON takes a number of seconds, or null.
func (s *seconds) UnmarshalJSON(data []byte) error {
	var n *float64
	if err := json.Unmarshal(data, &n); err != nil {
		return fmt.Errorf("not a number of seconds")
	}
	if n == nil {
		return nil
	}
	if math.Abs(*n) > float64(math.MaxInt64/int64(time.Second)) {
		return fmt.Errorf("too many seconds")
	}
	*s = seconds(*n * float64(time.Second))
	return nil
}

func (s seconds) duration() time.Duration { return time.Duration(s) }

// whole rounds up to the seconds that Vault takes.
func whole(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
