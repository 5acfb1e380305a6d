package api

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Whatever the parser takes, net/url reads in the same way, and nothing in it
// is said twice.
func FuzzForm(f *testing.F) {
	for _, s := range []string{"", "a=b&c=d", "a=%41+b&&x", "a=%zz", "a=1&a=2", "%61=1&a=2", "a;b=c", "=x", "a=%00", "a=\xff", "a=%c3%a9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseForm(s)
		want, reference := url.ParseQuery(s)
		if err != nil {
			return
		}
		if reference != nil {
			t.Fatalf("net/url refuses %q: %v", s, reference)
		}
		if len(got.params) != len(want) || len(got.params) > maxFormParams {
			t.Fatalf("%q: %d parameters, net/url finds %d", s, len(got.params), len(want))
		}
		for name, values := range want {
			if len(values) != 1 || !got.sent(name) || got.get(name) != values[0] {
				t.Fatalf("%q: %q is %q, net/url finds %q", s, name, got.get(name), values)
			}
		}
		for _, p := range got.params {
			if p.name == "" || !utf8.ValidString(p.name+p.value) {
				t.Fatalf("%q: took %q=%q", s, p.name, p.value)
			}
		}
	})
}

// What a client builds the way RFC 6749 says is read as it was meant; what is
// read otherwise is never empty.
func FuzzBasic(f *testing.F) {
	f.Add("worker", "s3cret:%+", "")
	f.Add("a", "", "Og==")
	f.Fuzz(func(t *testing.T, id, secret, raw string) {
		if gotID, gotSecret, err := parseBasic(raw); err == nil && (gotID == "" || gotSecret == "") {
			t.Fatalf("%q: took an empty part", raw)
		}
		sent := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id) + ":" + url.QueryEscape(secret)))
		gotID, gotSecret, err := parseBasic(sent)
		if err == nil && (gotID != id || gotSecret != secret) {
			t.Fatalf("sent %q %q, read %q %q", id, secret, gotID, gotSecret)
		}
	})
}

// Against a plain reading of the pseudo-code of RFC 7396 section 2.
func FuzzMergePatch(f *testing.F) {
	for _, s := range [][2]string{
		{`{"a":"b"}`, `{"a":"c"}`}, {`{"a":"b"}`, `{"b":"c"}`}, {`{"a":"b"}`, `{"a":null}`}, {`{"a":"b","b":"c"}`, `{"a":null}`},
		{`{"a":["b"]}`, `{"a":"c"}`}, {`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`}, {`{"a":[{"b":"c"}]}`, `{"a":[1]}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`}, {`{"e":null}`, `{"a":1}`}, {`{"a":1}`, `{"\u0061":2}`}, {`{"a":1}`, `{"a":1,"a":2}`},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, target, patch string) {
		got, err := mergePatch([]byte(target), []byte(patch))
		_, badTarget := credential.ParseObject([]byte(target))
		_, badPatch := credential.ParseObject([]byte(patch))
		if (err != nil) != (badTarget != nil || badPatch != nil) {
			t.Fatalf("%s + %s: %v, target %v, patch %v", target, patch, err, badTarget, badPatch)
		}
		if err != nil {
			return
		}
		var a, b, c any
		if json.Unmarshal([]byte(target), &a) != nil || json.Unmarshal([]byte(patch), &b) != nil {
			return // a number beyond float64
		}
		if err := json.Unmarshal(got, &c); err != nil {
			t.Fatalf("%s + %s: not JSON: %s", target, patch, got)
		}
		if want := merge(a, b); !reflect.DeepEqual(c, want) {
			t.Fatalf("%s + %s = %s, want %v", target, patch, got, want)
		}
	})
}

func merge(target, patch any) any {
	changes, isObject := patch.(map[string]any)
	if !isObject {
		return patch
	}
	out := map[string]any{}
	if t, isObject := target.(map[string]any); isObject {
		for k, v := range t {
			out[k] = v
		}
	}
	for k, v := range changes {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = merge(out[k], v)
		}
	}
	return out
}

// A body that is taken means the same to encoding/json; nothing panics.
func FuzzDecodeStrict(f *testing.F) {
	for _, s := range []string{`{"account":"a","scopes":"x","tenants":["a"]}`, `{"Account":"a"}`, `{"fan_out":{"tenants":1}}`, `{"fan_out":{"Tenants":1}}`,
		`{"any_tenant":null}`, `{"reason":1}`, `[]`, `{"max_ttl":"5m"}`, `{"account":"a","account":"b"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want grantCreate
		if err := decodeStrict(data, &got); err != nil {
			if p := problemOf(err); p.Status/100 != 4 {
				t.Fatalf("%s: %v", data, err)
			}
			return
		}
		if err := json.Unmarshal(data, &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: %v", data, err)
		}
	})
}

// A cursor is of its list or it is refused.
func FuzzCursor(f *testing.F) {
	f.Add("tenants", "acme")
	f.Add("", makeCursor("tenants", "acme"))
	f.Fuzz(func(t *testing.T, list, s string) {
		if got, err := parseCursor("grants", s); err == nil && s != "" && makeCursor("grants", got) != s {
			t.Fatalf("%q has a second spelling", s)
		}
		if got, err := parseCursor(list, makeCursor(list, s)); err != nil || got != s {
			if list != "" && s != "" {
				t.Fatalf("%q of %q: %q %v", s, list, got, err)
			}
		}
	})
}
