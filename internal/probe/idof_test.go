package probe

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestWhereAnIDIs(t *testing.T) {
	for name, k := range map[string]struct {
		body, location, pointer, want string
	}{
		"a text":                       {`{"id":"x"}`, "", "/id", "x"},
		"a number":                     {`{"id":9007199254740993}`, "", "/id", "9007199254740993"},
		"in a list":                    {`[{"id":"x"}]`, "", "/0/id", "x"},
		"under an escaped name":        {`{"a/b~":"x"}`, "", "/a~1b~0", "x"},
		"an empty text":                {`{"id":""}`, "", "/id", ""},
		"an object":                    {`{"id":{}}`, "", "/id", ""},
		"beyond the list":              {`[]`, "", "/0", ""},
		"no place in a list":           {`[1]`, "", "/x", ""},
		"below a text":                 {`{"id":"x"}`, "", "/id/x", ""},
		"in no JSON":                   {`<id>`, "", "/id", ""},
		"the last segment of Location": {"", "/orders/ord_1", "", "ord_1"},
		"of a whole URL":               {"", "https://x.example.com/orders/7?a=b", "", "7"},
		"dots":                         {`{"id":".."}`, "", "/id", ""},
		"a dot":                        {"", "/orders/.", "", ""},
		"dots in Location":             {"", "/orders/..", "", ""},
		"as long as may be":            {`{"id":"` + strings.Repeat("x", maxID) + `"}`, "", "/id", strings.Repeat("x", maxID)},
		"longer":                       {`{"id":"` + strings.Repeat("x", maxID+1) + `"}`, "", "/id", ""},
		"longer when it is escaped":    {`{"id":"` + strings.Repeat("ä", maxID/5) + `"}`, "", "/id", ""},
		"an escape of a terminal":      {`{"id":"a\u001b[2J"}`, "", "/id", ""},
		"a line end":                   {`{"id":"a\nb"}`, "", "/id", ""},
		"no Location":                  {"", "", "", ""},
		"a Location that is none":      {"", "/", "", ""},
		"one that does not parse":      {"", "%", "", ""},
	} {
		id, err := idOf(&answer{body: []byte(k.body), header: http.Header{"Location": {k.location}}}, k.pointer)
		if (err != nil) != (k.want == "") || err == nil && fmt.Sprint(id) != k.want {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
}

func TestTheSameValidator(t *testing.T) {
	of := func(status int, name, value string) *answer {
		return &answer{status: status, header: http.Header{name: {value}}}
	}
	for name, k := range map[string]struct {
		own, a *answer
		want   bool
	}{
		"the same tag":    {of(200, "Etag", `"1"`), of(200, "Etag", `"1"`), true},
		"a weak one":      {of(200, "Etag", `W/"1"`), of(200, "Etag", `"1"`), true},
		"another":         {of(200, "Etag", `"2"`), of(200, "Etag", `"1"`), false},
		"the same time":   {of(200, "Last-Modified", "x"), of(200, "Last-Modified", "x"), true},
		"another time":    {of(200, "Last-Modified", "y"), of(200, "Last-Modified", "x"), false},
		"a refusal's tag": {of(404, "Etag", `"1"`), of(200, "Etag", `"1"`), false},
	} {
		if got := sameValidator(k.own, k.a.header); got != k.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
