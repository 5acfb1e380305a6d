package verifier

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

var feedIssuer = credential.MustIssuerURL("https://broker.example")

const goodFeed = `{"iss":"https://broker.example","seq":7,"complete":true,"more":true,"tenant":"acme","tokens":["j"],"chains":["t"],` +
	`"accounts":{"worker":100},"tenants":{"acme":200},"keys":["k"],"all":50,"max_stale":300,"later":{"x":[1]}}`

func TestAnAnswerOfTheFeedIsReadStrictly(t *testing.T) {
	f, err := parseFeed([]byte(goodFeed), feedIssuer)
	if err != nil {
		t.Fatal(err)
	}
	if f.seq != 7 || !f.complete || !f.more || f.tenant.String() != "acme" || f.tokens[0] != "j" || f.chains[0] != "t" || f.keys[0] != "k" ||
		f.accounts[credential.MustAccountID("worker")] != 100 || f.tenants[credential.MustTenant("acme")] != 200 || f.all != 50 ||
		f.maxStale != 5*time.Minute || f.news() != 6 {
		t.Errorf("%+v", f)
	}
	for name, c := range map[string][2]string{
		"another issuer":        {"broker.example", "other.example"},
		"no issuer":             {`"iss":"https://broker.example",`, ``},
		"a negative seq":        {`"seq":7`, `"seq":-7`},
		"a fraction":            {`"seq":7`, `"seq":7.0`},
		"a seq as text":         {`"seq":7`, `"seq":"7"`},
		"a seq beyond 63 bits":  {`"seq":7`, `"seq":9223372036854775808`},
		"complete as a number":  {`"complete":true`, `"complete":1`},
		"no complete":           {`"complete":true,`, ``},
		"a member twice":        {`"seq":7`, `"seq":7,"seq":8`},
		"tokens are null":       {`"tokens":["j"]`, `"tokens":null`},
		"no tokens":             {`"tokens":["j"],`, ``},
		"a token is a number":   {`["j"]`, `[1]`},
		"an empty token":        {`["j"]`, `[""]`},
		"a token too long":      {`["j"]`, `["` + strings.Repeat("j", 129) + `"]`},
		"accounts are a list":   {`{"worker":100}`, `[]`},
		"an account twice":      {`{"worker":100}`, `{"worker":100,"w\u006frker":1}`},
		"no account":            {`"worker"`, `"a b"`},
		"an epoch as text":      {`:100`, `:"100"`},
		"an epoch too far":      {`:100`, `:253402300800`},
		"a tenant of no tenant": {`{"acme":200}`, `{"":200}`},
		"another kind of more":  {`"more":true`, `"more":"true"`},
		"a view of no tenant":   {`"tenant":"acme"`, `"tenant":"a b"`},
		"all as text":           {`"all":50`, `"all":"x"`},
		"max_stale as text":     {`"max_stale":300`, `"max_stale":"300"`},
		"no max_stale":          {`,"max_stale":300`, ``},
		"something after it":    {`"x":[1]}}`, `"x":[1]}} x`},
	} {
		text := strings.Replace(goodFeed, c[0], c[1], 1)
		if _, err := parseFeed([]byte(text), feedIssuer); text == goodFeed || !errors.Is(err, errFeed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for given, want := range map[string]time.Duration{"0": leastStale, "11": 11 * time.Second, "99999999999": mostStale} {
		f, err := parseFeed([]byte(strings.Replace(goodFeed, ":300", ":"+given, 1)), feedIssuer)
		if err != nil || f.maxStale != want {
			t.Errorf("max_stale %s: %v %v", given, f, err)
		}
	}
}

func TestAnAnswerOfTheFeedIsBounded(t *testing.T) {
	var tokens, accounts []string
	for n := range maxFeedEntries {
		tokens = append(tokens, fmt.Sprintf(`"%d"`, n))
		accounts = append(accounts, fmt.Sprintf(`"a%d":1`, n))
	}
	list := func(n int) string {
		return strings.Replace(goodFeed, `["j"]`, "["+strings.Join(tokens[:n], ",")+"]", 1)
	}
	object := func(n int) string {
		return strings.Replace(goodFeed, `"worker":100`, strings.Join(accounts[:n], ","), 1)
	}
	for text, ok := range map[string]bool{list(8192): true, list(maxFeedEntries): true, object(1000): true, object(maxFeedEpochs + 64): false} {
		if _, err := parseFeed([]byte(text), feedIssuer); (err == nil) != ok {
			t.Errorf("%d bytes: %v", len(text), err)
		}
	}
}

// FuzzFeed: nothing panics, and what is taken holds to the grammars.
func FuzzFeed(f *testing.F) {
	f.Add([]byte(goodFeed))
	f.Add([]byte(strings.Replace(goodFeed, `"j"`, `"\u0000"`, 1)))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		feed, err := parseFeed(data, feedIssuer)
		if err != nil {
			if !errors.Is(err, errFeed) {
				t.Fatalf("%v", err)
			}
			return
		}
		for id, at := range feed.accounts {
			if _, err := credential.ParseAccountID(id.String()); err != nil || at < 0 || at > latestEpoch {
				t.Fatalf("%v %d", id, at)
			}
		}
		if feed.maxStale < leastStale || feed.maxStale > mostStale || feed.news() > 2*maxFeedEntries {
			t.Fatalf("%+v", feed)
		}
		k := new(known)
		k.init(1000)
		k.learn(feed, time.Unix(0, 0), 0, time.Unix(0, 0))
		if k.entries.count() > 1000 {
			t.Fatalf("%d remembered", k.entries.count())
		}
	})
}
