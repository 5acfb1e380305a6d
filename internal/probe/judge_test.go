package probe

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	secretOfA = "probesecretofa12345678901"
	secretOfB = "probesecretofb12345678901"
	orderOfA  = "ord_aaaaaaaaaaaaaaaaaaaaaa"
	orderOfB  = "ord_bbbbbbbbbbbbbbbbbbbbbb"
	nobodys   = "ord_cccccccccccccccccccccc"
)

// says is an answer to a request that carried what is sent.
func says(status int, body, sent string) *answer {
	return &answer{status: status, body: []byte(body), sent: sent, line: "GET /x", header: http.Header{}, took: time.Millisecond}
}

// about is evidence of an attempt by id, as B, at A's order.
func about(status int, body string) evidence {
	return evidence{
		got:       []*answer{says(status, body, "/orders/"+orderOfA)},
		witnesses: []witness{newWitness("the id", orderOfA), newWitness("the secret", secretOfA)},
		ownValues: []witness{newWitness("the id", orderOfB), newWitness("the secret", secretOfB)},
		tenant:    "acme", byID: true, drawn: true, ids: []string{orderOfA, nobodys},
	}
}

func (e evidence) none(status int, body string) evidence {
	e.nonsense = says(status, body, "/orders/"+nobodys)
	return e
}

func (e evidence) with(change func(*evidence)) evidence {
	change(&e)
	return e
}

// order is an answer of five values.
func order(id, note, secret string) string {
	return fmt.Sprintf(`{"id":%q,"note":%q,"secret":%q,"version":1,"open":true}`, id, note, secret)
}

func TestJudge(t *testing.T) {
	notFound := `{"error":"there is no ` + orderOfA + `"}`
	none := `{"error":"there is no ` + nobodys + `"}`
	list := func(body string) evidence {
		return about(200, body).with(func(e *evidence) { e.byID, e.got[0].sent, e.ids = false, "/orders", nil })
	}
	reference := func(e evidence, body string) evidence {
		e.reference = []*answer{says(200, body, "/orders/"+orderOfA)}
		return e
	}
	anonymous := func(e evidence) evidence {
		e.anonymous = true
		return e
	}
	alikeA := order("1", "note", "hidden") // of neither, as far as the witnesses tell
	for name, k := range map[string]struct {
		is   evidence
		want string
	}{
		// Content.
		"A's secret":                         {about(200, order(orderOfA, "", secretOfA)), "leak content"},
		"in an error page":                   {about(500, "<html>"+secretOfA+"</html>"), "leak content"},
		"in a refusal":                       {about(404, `{"error":"`+secretOfA+` is not yours"}`).none(404, none), "leak content"},
		"in a header":                        {about(404, "").with(func(e *evidence) { e.got[0].header.Set("X-Owner", "x "+secretOfA) }), "leak content"},
		"in escapes":                         {about(200, `{"x":"\u0070`+secretOfA[1:]+`"}`), "leak content"},
		"as the name of a member":            {about(200, `{"\u0070`+secretOfA[1:]+`":1}`), "leak content"},
		"in a line of an export":             {about(200, "{\"a\":1}\n{\"b\":\"\\u0070"+secretOfA[1:]+"\"}\n"), "leak content"},
		"in an answer before the last":       {list("").with(func(e *evidence) { e.got = []*answer{says(200, secretOfA, "/x"), says(404, "", "/y")} }), "leak content"},
		"A's id in a list":                   {list(`["` + orderOfA + `"]`), "leak content"},
		"an echo of the id":                  {about(404, notFound).none(404, none), ""},
		"an echo of the id in an error page": {about(404, "<html><h1>404</h1>"+orderOfA+"</html>").none(404, "<html><h1>404</h1>"+nobodys+"</html>"), ""},
		"an echo, later":                     {list("").with(func(e *evidence) { e.got = []*answer{says(201, "", "/x "+orderOfA), says(200, orderOfA, "/y")} }), ""},
		"what B has as well":                 {about(200, secretOfA).with(func(e *evidence) { e.ownValues = append(e.ownValues, newWitness("", secretOfA)) }), ""},
		"A's secret, whatever the id":        {about(200, secretOfA).none(200, secretOfA), "leak content"},
		"A's id, for an id that nobody has":  {about(200, orderOfA).none(200, orderOfA), "leak content"},
		"A's secret, for nobody's id only":   {about(404, notFound).none(200, secretOfA), "leak content"},
		"A's secret, for B's own id":         {about(404, notFound).with(func(e *evidence) { e.own = []*answer{says(200, secretOfA, "/orders/"+orderOfB)} }), "leak content"},
		"B's own, judged already":            {about(404, notFound).with(func(e *evidence) { e.own, e.ownJudged = []*answer{says(200, secretOfA, "")}, true }), ""},
		"what nobody's request carried":      {about(404, notFound).none(404, none).with(func(e *evidence) { e.nonsense.sent += orderOfA; e.nonsense.body = []byte(orderOfA) }), "suspect existence"},
		"short, and answered to everything":  {about(200, `{"x":"ab12"}`).none(200, `{"x":"ab12"}`).with(func(e *evidence) { e.witnesses = []witness{newWitness("w", "ab12")} }), ""},
		"a short value, as a value":          {list(`{"x":"ab12"}`).with(func(e *evidence) { e.witnesses = []witness{newWitness("w", "ab12")} }), "suspect content"},
		"a short value within another":       {list(`{"x":"ab123"}`).with(func(e *evidence) { e.witnesses = []witness{newWitness("w", "ab12")} }), ""},
		"a short value, as a number":         {list(`{"x":[7]}`).with(func(e *evidence) { e.witnesses = []witness{newWitness("w", "7")} }), "suspect content"},
		"eight characters are evidence":      {list("x ab345678 y").with(func(e *evidence) { e.witnesses = []witness{newWitness("w", "ab345678")} }), "leak content"},
		"a value that is empty":              {list(`{"x":""}`).with(func(e *evidence) { e.witnesses = []witness{newWitness("w", "")} }), ""},
		"everybody's":                        {about(200, secretOfA).with(func(e *evidence) { e.shared = true }), ""},
		"an empty body":                      {about(200, ""), ""},
		"an empty body, to everybody":        {reference(about(200, ""), ""), ""},
		"no content":                         {about(204, "").none(204, ""), ""},
		"a body that is null":                {reference(about(200, "null"), "null"), ""},
		"broken JSON":                        {about(200, `{"x":`), ""},
		"only B's own":                       {list(`["` + orderOfB + `"]`), ""},
		"both, in a batch":                   {list(`["` + orderOfB + `","` + orderOfA + `"]`), "leak content"},
		// The tenant.
		"the refusal names the tenant":      {about(404, `{"error":"it is acme's"}`), "leak tenant"},
		"a longer name":                     {about(404, `{"error":"it is acme-two"}`), ""},
		"a name within a word":              {about(404, `{"error":"myacme"}`), ""},
		"a tenant that the request named":   {about(404, `acme`).with(func(e *evidence) { e.got[0].sent += " acme" }), ""},
		"a tenant that every refusal names": {about(404, `acme`).none(404, `acme`), ""},
		"a tenant, and nothing to compare":  {about(404, `acme`).with(func(e *evidence) { e.withheld = true }), "suspect tenant"},
		"a tenant that nobody is told":      {about(404, `acme`).with(func(e *evidence) { e.withheld, e.anonymous = true, true }), "leak tenant"},
		"a tenant in what is not refused":   {about(200, `acme`), ""},
		// Existence.
		"403, and 404 for nobody's":  {about(403, "").none(404, ""), "leak existence"},
		"409, and 404 for nobody's":  {about(409, "").none(404, ""), "leak existence"},
		"410, and 404 for nobody's":  {about(410, "").none(404, ""), "leak existence"},
		"403 for both":               {about(403, "").none(403, ""), ""},
		"400 for nobody's":           {about(403, "").none(400, ""), ""},
		"the service fails":          {about(503, "").none(404, ""), ""},
		"asked too often":            {about(429, "").none(404, ""), ""},
		"no token":                   {about(401, "").none(404, ""), ""},
		"200, and 404 for nobody's":  {about(200, "{}").none(404, ""), "leak existence"},
		"204, and 404 for nobody's":  {about(204, "").none(404, ""), "leak existence"},
		"200, and 410 for nobody's":  {about(200, `{"card":"4111"}`).none(410, ""), "leak existence"},
		"200, and 403 for nobody's":  {about(200, "{}").none(403, ""), ""},
		"200 for both":               {about(200, "").none(200, ""), ""},
		"200 with B's own in it":     {about(200, order(orderOfB, "", secretOfB)).none(404, ""), "leak existence"},
		"200, for everybody":         {about(200, "{}").none(404, "").with(func(e *evidence) { e.shared, e.public = true, true }), ""},
		"200, and it may be B's own": {about(200, "{}").none(404, "").with(func(e *evidence) { e.drawn = false }), ""},
		// Nobody has anything of its own.
		"200 without a token, 404 for nobody's": {anonymous(about(200, "{}").none(404, "")), "leak existence"},
		"the same, where ids are numbered":      {anonymous(about(200, "{}").none(404, "")).with(func(e *evidence) { e.drawn = false }), "leak existence"},
		"200 without a token, whatever the id":  {anonymous(about(200, "").none(200, "")), "suspect open"},
		"200 without a token, by no id":         {anonymous(list("[]")), "suspect open"},
		"200 without a token, with what is A's": {anonymous(about(200, secretOfA).none(404, "")), "leak content"},
		"200 without a token, for everybody":    {anonymous(about(200, "{}").none(200, "{}")).with(func(e *evidence) { e.shared, e.public = true, true }), ""},
		"204 for a change to what all may read": {anonymous(about(204, "")).with(func(e *evidence) { e.public = true }), ""},
		"a refusal without a token":             {anonymous(about(401, "")), ""},
		"another text":                          {about(404, "not yours").none(404, "not found"), "suspect existence"},
		"another text of a refusal":             {about(403, "not yours").none(403, "not found"), "suspect existence"},
		"another text in an envelope":           {about(200, `{"error":"not yours"}`).none(200, `{"error":"not found"}`).with(func(e *evidence) { e.again = e.nonsense }), "suspect existence"},
		"the same, and it was made only once":   {about(201, `{"id":"abc"}`).none(201, `{"id":"xyz"}`), ""},
		"the same, and it may be B's own":       {about(200, `{"error":"not yours"}`).none(200, `{"error":"not found"}`).with(func(e *evidence) { e.drawn = false }), ""},
		"another text, nobody's is not decided": {about(403, "not yours").none(503, "later"), ""},
		"another time and request":              {about(404, "at 10:00:01, request 7a1").none(404, "at 10:00:02, request 9b4"), ""},
		"a longer text, by the echo":            {about(404, "no "+orderOfA+"!").none(404, "no "+nobodys+"!"), ""},
		// Resemblance.
		"the same as A's":               {reference(about(200, alikeA), alikeA), "suspect resemblance"},
		"few values, 404 for nobody's":  {reference(about(200, `{"a":1,"b":2}`), `{"a":1,"b":2}`).none(404, ""), "leak existence"},
		"five values, 404 for nobody's": {reference(about(200, alikeA), alikeA).none(404, ""), "leak existence"},
		"the same, of few values":       {reference(about(200, `{"a":1,"b":2}`), `{"a":1,"b":2}`), ""},
		"the same with B's own in it":   {reference(about(200, order(orderOfB, "note", "hidden")), order(orderOfB, "note", "hidden")), ""},
		"one of five is another":        {reference(about(200, order("1", "note", "other")), alikeA), ""},
		"the same, long, no JSON":       {reference(about(200, strings.Repeat("x", 65)), strings.Repeat("x", 65)), "suspect resemblance"},
		"the same, short, no JSON":      {reference(about(200, strings.Repeat("x", 64)), strings.Repeat("x", 64)), ""},
		"nearly the same, no JSON":      {reference(about(200, strings.Repeat("x", 65)), strings.Repeat("x", 64)+"y"), ""},
		"the same refusal":              {reference(about(404, alikeA), alikeA), ""},
		"the same, but A was refused":   {reference(about(200, alikeA), alikeA).with(func(e *evidence) { e.reference[0].status = 404 }), ""},
		"the same list":                 {reference(list(alikeA), alikeA), ""},
		// Time accuses nobody.
		"a hundred times as long as nobody's": {about(404, "no").none(404, "no").with(func(e *evidence) { e.got[0].took = time.Second }), ""},
		"a hundredth of nobody's":             {about(404, "no").none(404, "no").with(func(e *evidence) { e.nonsense.took = time.Second }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := make([]string, 0, 1)
			for _, f := range judge(k.is) {
				if kind := string(f.Verdict) + " " + f.Kind; len(got) == 0 || got[0] != kind {
					got = append(got, kind)
				}
				if strings.Contains(f.Text, secretOfA) {
					t.Error("the finding shows the value")
				}
			}
			if strings.Join(got, ", ") != k.want {
				t.Errorf("%v, want %q", got, k.want)
			}
		})
	}
}

func TestSimilarity(t *testing.T) {
	nine := `{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":`
	for name, k := range map[string]struct {
		a, b string
		want float64
	}{
		"the same":                {order("1", "a", "b"), order("1", "a", "b"), 1},
		"in another order":        {`{"a":1,"b":2}`, `{"b":2,"a":1}`, 1},
		"one of ten":              {nine + "1}", nine + "2}", 9.0 / 11},
		"one that is not there":   {`{"a":1,"b":2}`, `{"a":1}`, 0.5},
		"nothing in common":       {`{"a":1}`, `{"b":2}`, 0},
		"nothing at all":          {"", "", 0},
		"one that is empty":       {"", "{}", 0},
		"two that have no values": {"{}", "[]", 1},
		"a text and a number":     {`{"a":"1"}`, `{"a":1}`, 1},
		"texts, the same":         {"abc", "abc", 1},
		"texts, nearly the same":  {"abc", "abd", 0},
		"a large number":          {`[9007199254740993]`, `[9007199254740992]`, 0},
	} {
		if got := similarity([]byte(k.a), []byte(k.b)); got != k.want {
			t.Errorf("%s: %v, want %v", name, got, k.want)
		}
	}
}

func TestDoubts(t *testing.T) {
	echo := says(200, `{"order":"`+orderOfA+`","card":"4111"}`, "/orders/"+orderOfA+"/payment")
	// bland is what both are answered about their own, with the id and x.
	bland := func(idA, xA, idB, xB string) evidence {
		said := func(id, x string) []*answer {
			return []*answer{says(200, `{"order":"`+id+`","x":`+x+`}`, "/orders/"+id+"/payment; q=1,2")}
		}
		return about(200, "").with(func(e *evidence) {
			e.witnesses, e.ownValues = []witness{newWitness("", idA)}, []witness{newWitness("", idB)}
			e.reference, e.own = said(idA, xA), said(idB, xB)
		})
	}
	good := says(200, order(orderOfA, "", secretOfA), "")
	for name, k := range map[string]struct {
		is   evidence
		want string
	}{
		"none":                                        {about(404, "").with(func(e *evidence) { e.reference, e.own = []*answer{good}, []*answer{good} }), ""},
		"the service failed":                          {about(500, ""), "did not decide (status 500)"},
		"it was asked too often":                      {about(429, ""), "did not decide (status 429)"},
		"an answer that was cut":                      {about(200, "").with(func(e *evidence) { e.got[0].cut = true }), "limits.body"},
		"B's token is not accepted":                   {about(401, ""), "does not accept B's token"},
		"nobody's token is none":                      {about(401, "").with(func(e *evidence) { e.anonymous = true }), ""},
		"A itself is refused":                         {about(404, "").with(func(e *evidence) { e.reference = []*answer{says(403, "", "")} }), "A itself gets status 403"},
		"A's answer shows nothing":                    {about(404, "").with(func(e *evidence) { e.reference = []*answer{says(200, "{}", "")} }), "shows nothing of A's object"},
		"A's answer shows the id it was asked with":   {about(200, "").with(func(e *evidence) { e.reference = []*answer{echo} }), "what it was asked with"},
		"the same, and B is refused":                  {about(404, "").with(func(e *evidence) { e.reference = []*answer{echo} }), ""},
		"a step before had the id":                    {about(200, "").with(func(e *evidence) { e.reference = []*answer{says(201, "", "/x "+orderOfA), says(200, orderOfA, "/y")} }), "what it was asked with"},
		"A's id in a list":                            {about(200, "").with(func(e *evidence) { e.reference = []*answer{says(200, orderOfA, "/orders")} }), ""},
		"the same, and nothing of an object is in it": {bland(orderOfA, `"open"`, orderOfB, `"open"`), ""},
		"the same, and something is":                  {bland(orderOfA, `"4111"`, orderOfB, `"4222"`), "what it was asked with"},
		"a number that the request has by chance":     {bland(orderOfA, `1`, orderOfB, `2`), "what it was asked with"},
		"a member that B's has not":                   {bland(orderOfA, `"open"`, orderOfB, `"open","y":1`), "what it was asked with"},
		"a member that A's has not":                   {bland(orderOfA, `"open","y":1`, orderOfB, `"open"`), "what it was asked with"},
		"nothing of numbered ones":                    {bland("1042", `"open"`, "1043", `"open"`), ""},
		"A's answer, of what is shared":               {about(404, "").with(func(e *evidence) { e.reference, e.shared = []*answer{says(200, "{}", "")}, true }), ""},
		"B is refused its own":                        {about(404, "").with(func(e *evidence) { e.own = []*answer{says(403, "", "")} }), "403 even for its own object"},
		"B is refused its list":                       {about(403, "").with(func(e *evidence) { e.entitled = true }), "though nothing of A's is asked for"},
	} {
		got := ""
		if found := k.is.doubts(); len(found) > 0 {
			if got = found[0].Text; found[0].Verdict != Inconclusive {
				t.Errorf("%s: %s", name, found[0].Verdict)
			}
		}
		if (got == "") != (k.want == "") || !strings.Contains(got, k.want) {
			t.Errorf("%s: %q, want %q", name, got, k.want)
		}
	}
}
