package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// values stand for the names in braces: a string or a json.Number each.
type values map[string]any

// ownNames stand for what the probe made, and for ids; all others for what was saved.
var ownNames = []string{"id", "own", "marker", "other_marker", "witness", "planted", "tenant", "tenant_a", "tenant_b"}

// own are the values that a report may show.
func (v values) own() values {
	shown := make(values, len(v))
	for _, name := range ownNames {
		if value, ok := v[name]; ok {
			shown[name] = value
		}
	}
	return shown
}

var placeholder = regexp.MustCompile(`\{[a-z0-9_-]*\}`)

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "QUERY"}

// checkRequest takes a method, one space, and a path with or without a query.
func checkRequest(text string, names []string) error {
	method, target, found := strings.Cut(text, " ")
	switch {
	case !found || !slices.Contains(methods, method):
		return fmt.Errorf("%q is not a request such as GET /orders/{id}", text)
	case !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//"):
		return fmt.Errorf("%q: the path begins with one slash, and stays at base_url", text)
	case len(text) > maxText || strings.ContainsAny(target, " #\\\r\n\t\x00"):
		return fmt.Errorf("%q is too long, or has a space, a backslash or a fragment", text)
	}
	path, _, _ := strings.Cut(target, "?")
	for segment := range strings.SplitSeq(path, "/") {
		if unescaped, err := url.PathUnescape(segment); err != nil || unescaped == ".." || unescaped == "." {
			return fmt.Errorf("%q: a segment of the path is not a name", text)
		}
	}
	return checkNames(text, names)
}

func checkNames(text string, names []string) error {
	for _, p := range placeholder.FindAllString(text, -1) {
		if name := p[1 : len(p)-1]; !slices.Contains(names, name) {
			return fmt.Errorf("{%s} stands for nothing here; there are {%s}", name, strings.Join(names, "}, {"))
		}
	}
	return nil
}

// checkBody holds a body to what JSON can say.
func checkBody(body any, names []string, depth int) error {
	if depth > 20 {
		return errors.New("the body is nested deeper than 20")
	}
	switch b := body.(type) {
	case nil, bool, int, int64, uint64:
		return nil
	case float64:
		if math.IsNaN(b) || math.IsInf(b, 0) {
			return errors.New("the body has a number that JSON has not")
		}
		return nil
	case string:
		return checkNames(b, names)
	case []any:
		for _, item := range b {
			if err := checkBody(item, names, depth+1); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		for _, item := range b {
			if err := checkBody(item, names, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("the body has a %T, which JSON has not", body)
}

// carries reports whether a step sends a value of that name.
func carries(s Step, name string) bool {
	p := "{" + name + "}"
	for _, value := range s.Headers {
		if strings.Contains(value, p) {
			return true
		}
	}
	body, _ := json.Marshal(s.Body)
	return strings.Contains(s.Request, p) || strings.Contains(string(body), p)
}

// target fills a request line; what is filled in stays one segment, or one value.
func (v values) target(request string) (method, target string) {
	method, rest, _ := strings.Cut(request, " ")
	path, query, asked := strings.Cut(rest, "?")
	path = v.replace(path, url.PathEscape)
	if asked {
		return method, path + "?" + v.replace(query, url.QueryEscape)
	}
	return method, path
}

func (v values) replace(text string, escape func(string) string) string {
	return placeholder.ReplaceAllStringFunc(text, func(p string) string {
		value, ok := v[p[1:len(p)-1]]
		if !ok {
			return p
		}
		return escape(fmt.Sprint(value))
	})
}

func plainly(s string) string { return s }

// body fills a body. A string that is one placeholder becomes what the value is,
// so that a number stays one.
func (v values) body(b any) any {
	switch b := b.(type) {
	case string:
		if placeholder.FindString(b) == b && b != "" {
			if value, ok := v[b[1:len(b)-1]]; ok {
				return value
			}
		}
		return v.replace(b, plainly)
	case []any:
		all := make([]any, len(b))
		for i, item := range b {
			all[i] = v.body(item)
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(b))
		for name, item := range b {
			all[name] = v.body(item)
		}
		return all
	}
	return b
}
