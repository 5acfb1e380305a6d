package verifier

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Bounds of an answer of the broker's feed. The broker's own are half of these.
const (
	maxFeed        = 1 << 20 // bytes
	maxFeedEpochs  = 2000    // of accounts and tenants together
	maxFeedEntries = 20_000
	maxFeedID      = credential.MaxIDLength
)

// Bounds of max_stale.
const (
	leastStale = 10 * time.Second
	mostStale  = time.Hour
)

var feedLimits = credential.JSONLimits{Depth: 8, Members: maxFeedEpochs + 64, Values: maxFeedEntries + 64}

// errFeed means that an answer of the feed is not one.
var errFeed = errors.New("not an answer of the feed of revocations")

// feed is an answer that was read.
type feed struct {
	seq                  uint64
	complete, more       bool
	tenant               credential.Tenant
	tokens, chains, keys []string
	accounts             map[credential.AccountID]int64
	tenants              map[credential.Tenant]int64
	all                  int64
	maxStale             time.Duration
}

// news is how many revocations it tells of.
func (f *feed) news() int {
	n := len(f.tokens) + len(f.chains) + len(f.keys) + len(f.accounts) + len(f.tenants)
	if f.all != 0 {
		n++
	}
	return n
}

// parseFeed reads an answer strictly: each member of its type, all that are
// required there, nothing twice. What is not known is skipped, so that a newer
// broker can say more.
func parseFeed(data []byte, issuer credential.IssuerURL) (*feed, error) {
	members, err := credential.ParseObjectWithin(data, feedLimits)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFeed, err)
	}
	f, iss, seen := &feed{}, "", 0
	for _, m := range members {
		required := true
		switch string(m.Name) {
		case "iss":
			iss, err = m.JSONText()
		case "seq":
			f.seq, err = feedNumber(m)
		case "complete":
			f.complete, err = feedBool(m)
		case "tokens":
			f.tokens, err = feedIDs(m)
		case "chains":
			f.chains, err = feedIDs(m)
		case "keys":
			f.keys, err = feedIDs(m)
		case "accounts":
			f.accounts, err = feedEpochs(m, credential.ParseAccountID)
		case "tenants":
			f.tenants, err = feedEpochs(m, credential.ParseTenant)
		case "max_stale":
			f.maxStale, err = feedStale(m)
		default:
			required, err = false, f.optional(m)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s", errFeed, m.Name)
		}
		if required {
			seen++
		}
	}
	switch {
	case seen != 9:
		return nil, fmt.Errorf("%w: a member is missing", errFeed)
	case iss != issuer.String():
		return nil, fmt.Errorf("%w: of another issuer", errFeed)
	}
	return f, nil
}

func (f *feed) optional(m credential.JSONMember) (err error) {
	switch string(m.Name) {
	case "more":
		f.more, err = feedBool(m)
	case "all":
		f.all, err = feedEpoch(m)
	case "tenant":
		var text string
		if text, err = m.JSONText(); err == nil {
			f.tenant, err = credential.ParseTenant(text)
		}
	}
	return err
}

func feedNumber(m credential.JSONMember) (uint64, error) {
	if m.Kind != credential.JSONNumber {
		return 0, errFeed
	}
	return strconv.ParseUint(string(m.Value), 10, 63)
}

// latestEpoch is the last second that an epoch may name: the end of the year
// 9999.
const latestEpoch = 253402300799

func feedEpoch(m credential.JSONMember) (int64, error) {
	n, err := feedNumber(m)
	if err != nil || n > latestEpoch {
		return 0, errFeed
	}
	return int64(n), nil
}

func feedBool(m credential.JSONMember) (bool, error) {
	if m.Kind != credential.JSONBool {
		return false, errFeed
	}
	return string(m.Value) == "true", nil
}

func feedStale(m credential.JSONMember) (time.Duration, error) {
	n, err := feedNumber(m)
	if err != nil {
		return 0, err
	}
	return max(leastStale, time.Duration(min(n, uint64(mostStale/time.Second)))*time.Second), nil
}

func feedIDs(m credential.JSONMember) ([]string, error) {
	elements, err := m.Elements()
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(elements))
	for _, e := range elements {
		id, err := e.JSONText()
		if err != nil || id == "" || len(id) > maxFeedID {
			return nil, errFeed
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func feedEpochs[ID comparable](m credential.JSONMember, parse func(string) (ID, error)) (map[ID]int64, error) {
	if m.Kind != credential.JSONObject {
		return nil, errFeed
	}
	members, err := credential.ParseObjectWithin(m.Value, feedLimits)
	if err != nil {
		return nil, err
	}
	epochs := make(map[ID]int64, len(members))
	for _, one := range members {
		id, err := parse(string(one.Name))
		if err != nil {
			return nil, err
		}
		if epochs[id], err = feedEpoch(one); err != nil {
			return nil, err
		}
	}
	return epochs, nil
}
