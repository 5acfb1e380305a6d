package languages_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// jury is the Go verifier and the examples, with one key that signs whatever bytes
// it is given as header and payload.
type jury struct {
	key    ed25519.PrivateKey
	own    *verifier.Verifier
	others []*judge
	seeds  [][2]string // headers and payloads of the vectors
}

const judged = int64(1768478400) // the time of the vectors

func newJury(t testing.TB) *jury {
	t.Helper()
	j := &jury{key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
	public, err := jwks.NewKey("ed-1", credential.EdDSA, j.key.Public())
	must(t, err)
	set := jwks.NewSet(public)
	document, err := json.Marshal(set)
	must(t, err)
	doc := readVectors(t)
	issuer, audience := doc.Vectors[0].Issuer, doc.Vectors[0].Audience
	j.own, err = verifier.New(t.Context(), verifier.Config{
		Issuer: issuer, Audience: audience, Keys: set, CacheSize: -1, Now: func() time.Time { return time.Unix(judged, 0) },
	})
	must(t, err)
	for language := range commands {
		j.others = append(j.others, newJudge(t, language, verdictsJob(issuer, audience, document)))
	}
	for _, v := range doc.Vectors {
		parts := strings.Split(v.Token, ".")
		header, err := base64.RawURLEncoding.DecodeString(parts[0])
		if err != nil || len(parts) != 3 {
			continue
		}
		if payload, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			j.seeds = append(j.seeds, [2]string{string(header), string(payload)})
		}
	}
	if len(j.seeds) < 300 {
		t.Fatalf("%d seeds", len(j.seeds))
	}
	return j
}

func verdictsJob(issuer, audience string, keys []byte) job {
	return job{Issuer: issuer, Audience: audience, Keys: keys, Time: judged, CoolDown: 30}
}

// agree signs the bytes and fails where the verifiers differ. It tells whether they accept.
func (j *jury) agree(t testing.TB, header, payload string) bool {
	t.Helper()
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	raw := input + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(j.key, []byte(input)))
	token, err := j.own.Verify(t.Context(), raw)
	for _, other := range j.others {
		said := other.verify(t, raw)
		if (err == nil) != (said.Refused == "") || (err == nil && said.Tenant != token.Tenant().String()) {
			t.Errorf("%s says %+v, Go %v:\n%q\n%q", other.language, said, err, header, payload)
		}
	}
	return err == nil
}

// FuzzTheExamplesAgree: headers and payloads of any bytes, well signed, are
// accepted by all verifiers, for the same tenant, or by none.
func FuzzTheExamplesAgree(f *testing.F) {
	j := newJury(f)
	for _, s := range j.seeds {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, header, payload string) {
		if len(header)+len(payload) < 12_000 {
			j.agree(t, header, payload)
		}
	})
}

// pieces are what changes put in.
var pieces = []string{
	`"tenant":"globex",`, `"TENANT":1,`, `"tenant\u0073":[],`, `\u0061`, `\ud83d\ude00`, `\ud83d`, `\ude00`, "\xff", "\xed\xa0\x80", "\u017f", "\ufeff", "\u00a0",
	`{}`, `[]`, `null`, `true`, `NaN`, `-Infinity`, `1e400`, `1e-400`, `-0`, `0.5`, `01`, `1.`, `253402300800`, `"`, `\`, `/`, `,`, `:`, ` `, "\n", "\t", "\x00", "\x7f",
	`"x":` + strings.Repeat("9", 5000) + `,`, strings.Repeat("1", 64), strings.Repeat("1", 65),
	`"a":{"a":1,"a":2},`, `"__proto__":{"tenant":"x"},`, `"constructor":1,`, `"jku":"http://x",`, `"crit":[],`, `"nbf":1768478430.5,`, `"nonce":1,`, `"nonce":null,`, `"x":1e400,`, `"x":{"a":-1e400},`, `1.7976931348623159e308`, `"act":{"sub":"a"},`, `'`, `/**/`,
}

// Thousands of small changes to the vectors' headers and payloads, each well signed.
func TestTheExamplesAgreeOnWhatIsNearlyAToken(t *testing.T) {
	const turns = 6000
	j := newJury(t)
	random := rand.New(rand.NewPCG(1, 2))
	change := func(s string) string {
		at, to := random.IntN(len(s)+1), random.IntN(len(s)+1)
		switch at, to = min(at, to), max(at, to); random.IntN(4) {
		case 0: // put in
			return s[:at] + pieces[random.IntN(len(pieces))] + s[at:]
		case 1: // put in the place of a little
			return s[:at] + pieces[random.IntN(len(pieces))] + s[min(len(s), at+1+random.IntN(3)):]
		case 2: // leave out
			return s[:at] + s[min(len(s), at+1+random.IntN(3)):]
		default: // say twice
			return s[:to] + s[at:]
		}
	}
	accepted := 0
	for range turns {
		s := j.seeds[random.IntN(len(j.seeds))]
		if strings.Contains(s[0], `"ed-1"`) && random.IntN(3) > 0 {
			s[1] = change(s[1])
		} else {
			s = [2]string{change(j.seeds[0][0]), j.seeds[0][1]}
		}
		if j.agree(t, s[0], s[1]) {
			accepted++
		}
	}
	if accepted < turns/50 || accepted > turns/2 {
		t.Errorf("%d of %d are accepted: the changes prove little", accepted, turns)
	}
}
