package openapi

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v3"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// Draft is what comes of a document: the objects with their attempts, and what is
// left for a person.
type Draft struct {
	Service string
	BaseURL string
	Objects []probe.Object
	Notes   []Note
}

// Note says what is not tried, and why.
type Note struct {
	Where string // an operation or a path
	Text  string
}

// ErrNothing means: no object can be derived, and the notes say why.
var ErrNothing = errors.New("openapi: no kind of object can be derived from the document")

// placeholderURL stands where the document names no server.
const placeholderURL = "https://service.example.com"

// Derive makes a draft of a document of at most MaxDocument bytes, MaxPaths paths
// and 64 levels, JSON or YAML. With ErrNothing, the draft has the notes.
func Derive(data []byte) (*Draft, error) {
	document, err := load(data)
	if err != nil {
		return nil, err
	}
	d := &Draft{}
	d.about(document)
	all, notes := operations(document)
	d.Notes = append(d.Notes, notes...)
	found, failed, notes := resources(all)
	d.Notes = append(d.Notes, notes...)
	d.attempts(all, found, failed)
	for _, r := range found {
		switch err := r.object.Check(); {
		case len(r.object.Try) == 0:
			d.note(r.item, "no attempt is left")
		case err != nil:
			d.note(r.item, "%v", err)
		case len(d.Objects) == probe.MaxObjects:
			d.note(r.item, "beyond %d kinds of objects", probe.MaxObjects)
		default:
			if r.object.Shared && r.read.extension.Shared == nil {
				d.note(r.item, "taken as shared, only changes are tried against it: the document says that reading one needs no token")
			}
			d.Objects = append(d.Objects, r.object)
		}
	}
	if len(d.Objects) == 0 {
		return d, ErrNothing
	}
	return d, nil
}

func (d *Draft) note(where, text string, args ...any) {
	d.Notes = append(d.Notes, Note{where, fmt.Sprintf(text, args...)})
}

// about takes the service's name and place.
func (d *Draft) about(document *openapi3.T) {
	title := ""
	if document.Info != nil {
		title = document.Info.Title
	}
	d.Service = nameOf(title, func(string) bool { return false })
	for _, s := range document.Servers {
		if s == nil {
			continue
		}
		if u, err := url.Parse(s.URL); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" && !strings.ContainsAny(s.URL, "{}") {
			d.BaseURL = strings.TrimSuffix(s.URL, "/")
			return
		}
	}
	d.BaseURL = placeholderURL
	d.note("servers", "no whole URL: base_url is to be filled in")
}

// YAML writes the draft as a description, in which the credentials are to be
// filled in, with the notes as comments at its end.
func (d *Draft) YAML() ([]byte, error) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "# Derived from an OpenAPI document. Look through it: what is not tried is at the end.")
	head := struct {
		Service string `yaml:"service"`
		BaseURL string `yaml:"base_url"`
	}{d.Service, d.BaseURL}
	tail := struct {
		Objects []probe.Object `yaml:"objects"`
	}{d.Objects}
	if err := encode(&out, head); err != nil {
		return nil, err
	}
	fmt.Fprint(&out, "tenants:\n  a: {tenant: probe-a, token_file: a.token}\n  b: {tenant: probe-b, token_file: b.token}\n")
	if len(d.Objects) > 0 {
		if err := encode(&out, tail); err != nil {
			return nil, err
		}
	}
	if len(d.Notes) > 0 {
		fmt.Fprintln(&out, "# Not derived:")
	}
	for _, n := range d.Notes {
		fmt.Fprintf(&out, "#   %s: %s\n", oneLine(n.Where), oneLine(n.Text))
	}
	return out.Bytes(), nil
}

func encode(out *bytes.Buffer, v any) error {
	e := yaml.NewEncoder(out)
	e.SetIndent(2)
	if err := e.Encode(v); err != nil {
		return err
	}
	return e.Close()
}

// oneLine keeps what the document says within its comment.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffd {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text[:min(len(text), 500)], " "))
}
