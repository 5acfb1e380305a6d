package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gorilla/mux"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// route is one operation of the admin API. The tables of routes are next to
// their handlers; a route without a role does not mount.
type route struct {
	method string
	path   string        // pattern of the router; a variable is one escaped segment
	role   registry.Role // the least that may call it; the registry may ask for more
	whole  bool          // only for operators who are bounded to no tenant
	query  []string      // the parameters it takes; others are refused
	do     func(*call) (answer, error)

	// A route for workloads names the audience of their tokens. One with a role
	// too is for operators as well.
	workload string
	serve    func(*workloadCall) (answer, error)
}

// call is one authenticated request on its way to a handler.
type call struct {
	*server
	w     *response
	r     *http.Request
	by    registry.By
	vars  map[string]string // variables of the path, unescaped
	query form
}

// answer is what a handler returns. Zero status: it has written by itself.
type answer struct {
	status   int
	body     any    // written as JSON; nil: none
	version  uint64 // for the ETag; 0: none
	location string // of what was created
}

func ok(body any, version uint64) (answer, error) {
	return answer{status: http.StatusOK, body: body, version: version}, nil
}

func created(body any, version uint64, location ...string) (answer, error) {
	at := ""
	for _, segment := range location {
		at += "/" + url.PathEscape(segment)
	}
	return answer{status: http.StatusCreated, body: body, version: version, location: "/v1" + at}, nil
}

func noContent() (answer, error) { return answer{status: http.StatusNoContent}, nil }

// operations are the methods of one path.
type operations struct {
	s       *server
	path    string
	methods map[string]route
	allow   string
}

// mount adds routes to the router, or says which one may not start.
func (s *server) mount(router *mux.Router, routes []route) error {
	byPath := make(map[string]*operations)
	var order []string
	for _, rt := range routes {
		switch {
		case rt.workload != "" && s.workloads[rt.workload] == nil:
			continue // this broker doesn't serve it
		case rt.workload != "" && (rt.serve == nil || (rt.role != "") != (rt.do != nil)):
			return fmt.Errorf("api: %s %s is neither for workloads nor for operators", rt.method, rt.path)
		case rt.workload != "" && rt.do == nil:
		case !slices.Contains(roles, rt.role):
			return fmt.Errorf("api: %s %s declares no role", rt.method, rt.path)
		case rt.do == nil:
			return fmt.Errorf("api: %s %s has no handler", rt.method, rt.path)
		case rt.role == registry.RoleViewer && rt.method != http.MethodGet:
			return fmt.Errorf("api: %s %s changes something and is open to viewers", rt.method, rt.path)
		}
		o := byPath[rt.path]
		if o == nil {
			o = &operations{s: s, path: rt.path, methods: make(map[string]route)}
			byPath[rt.path] = o
			order = append(order, rt.path)
		}
		if _, twice := o.methods[rt.method]; twice {
			return fmt.Errorf("api: %s %s is declared twice", rt.method, rt.path)
		}
		o.methods[rt.method] = rt
		if rt.method == http.MethodGet {
			o.methods[http.MethodHead] = rt
		}
	}
	for _, path := range order {
		o := byPath[path]
		var allow []string
		for m := range o.methods {
			allow = append(allow, m)
		}
		slices.Sort(allow)
		o.allow = strings.Join(allow, ", ")
		router.Handle(path, o)
	}
	return nil
}

var roles = []registry.Role{registry.RoleViewer, registry.RoleOperator, registry.RoleSecurity, registry.RoleAdmin}

// ServeHTTP authenticates, checks the role, calls, and writes the outcome.
func (o *operations) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := own(rw)
	w.route = o.path
	rt, known := o.methods[r.Method]
	if !known {
		w.Header().Set("Allow", o.allow)
		o.s.fail(w, refuse(wire.CodeMethodNotAllowed, "", ""))
		return
	}
	call := o.call
	if rt.workload != "" && (rt.do == nil || !o.s.isForOthers(r, rt)) {
		call = o.s.callWorkload
	}
	a, err := call(w, r, rt)
	if err == nil && a.status != 0 {
		err = a.write(w)
	}
	if err != nil {
		o.s.fail(w, err)
	}
}

func (o *operations) call(w *response, r *http.Request, rt route) (answer, error) {
	by, err := o.s.operator(w, r)
	if err != nil {
		return answer{}, err
	}
	if err := o.s.calls.take(by.Subject, o.s.now()); err != nil {
		return answer{}, err
	}
	if !registry.Includes(by.Roles, rt.role) {
		w.Header()["Www-Authenticate"] = o.s.scopeChallenge[rt.role]
		return answer{}, refuse(wire.CodeForbidden, "", "needs the role "+string(rt.role))
	}
	if rt.whole && !by.Tenant.IsSystem() {
		return answer{}, refuse(wire.CodeForbidden, "", "only for operators of the whole broker")
	}
	c := &call{server: o.s, w: w, r: r, by: by, vars: make(map[string]string)}
	if c.query, err = readQuery(r.URL.RawQuery, rt.query); err != nil {
		return answer{}, err
	}
	for name, escaped := range mux.Vars(r) {
		if c.vars[name], err = url.PathUnescape(escaped); err != nil {
			return answer{}, refuse(wire.CodeNotFound, "", "")
		}
	}
	return rt.do(c)
}

// readQuery reads a query strictly: each parameter once, and none that the
// route doesn't know. A filter with a slip in its name would otherwise show,
// or delete, more than was meant.
func readQuery(raw string, known []string) (form, error) {
	f, err := parseForm(raw)
	if bad := (*formError)(nil); errors.As(err, &bad) {
		return form{}, refuse(wire.CodeMalformed, showName(bad.parameter), bad.Error())
	}
	for _, p := range f.params {
		if !slices.Contains(known, p.name) {
			return form{}, refuse(wire.CodeMalformed, showName(p.name), "there is no such parameter here")
		}
	}
	return f, nil
}

func (a answer) write(w *response) error {
	h := w.Header()
	if a.version != 0 {
		h["Etag"] = []string{etag(a.version)}
	}
	if a.location != "" {
		h["Location"] = []string{a.location}
	}
	if a.body == nil {
		w.WriteHeader(a.status)
		return nil
	}
	body, err := json.Marshal(a.body)
	if err != nil {
		return err
	}
	writeJSON(w, a.status, body)
	return nil
}

// etag is the quoted version: a strong validator, since every change of an
// object changes its version.
func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// ifMatch reads If-Match: one quoted version, or 0 when it is absent or "*".
func (c *call) ifMatch() (uint64, error) {
	values := c.r.Header["If-Match"]
	if len(values) == 0 {
		return 0, nil
	}
	value := strings.TrimSpace(values[0])
	if len(values) > 1 || strings.Contains(value, ",") {
		return 0, refuse(wire.CodeMalformed, "If-Match", "one version")
	}
	if value == "*" {
		return 0, nil
	}
	if strings.HasPrefix(value, "W/") { // compared strongly, it matches nothing (RFC 9110 section 13.1.1)
		return 0, refuse(wire.CodeChanged, "", "")
	}
	inner, quoted := strings.CutPrefix(value, `"`)
	inner, closed := strings.CutSuffix(inner, `"`)
	version, err := strconv.ParseUint(inner, 10, 64)
	if !quoted || !closed {
		return 0, refuse(wire.CodeMalformed, "If-Match", "a quoted version, as in the ETag")
	}
	if err != nil || version == 0 || etag(version) != value { // an ETag that was never ours
		return 0, refuse(wire.CodeChanged, "", "")
	}
	return version, nil
}

// needIfMatch is ifMatch for a patch, which must name what it is a patch of.
func (c *call) needIfMatch() (uint64, error) {
	version, err := c.ifMatch()
	if err == nil && version == 0 {
		err = refuse(wire.CodeNeedIfMatch, "", "send If-Match with the ETag of what you read")
	}
	return version, err
}

// body reads a JSON body into v; see decodeStrict.
func (c *call) body(v any) error {
	data, err := jsonBody(c.r, "application/json")
	if err != nil {
		return err
	}
	return decodeStrict(data, v)
}

// change reads the body of an action and the version it is meant for.
func (c *call) change() (ifVersion uint64, err error) {
	if ifVersion, err = c.ifMatch(); err != nil {
		return 0, err
	}
	var body wire.Change
	if err := c.body(&body); err != nil {
		return 0, err
	}
	c.by.Reason = body.Reason
	return ifVersion, nil
}

// deletion reads what a DELETE carries: its reason stands in the query, since
// a body of it has no meaning that everyone agrees on (RFC 9110 section 9.3.5).
func (c *call) deletion() (ifVersion uint64, err error) {
	c.by.Reason = c.query.get("reason")
	return c.ifMatch()
}

// patchBody is a merge patch that was read, with what it is a patch of.
type patchBody struct {
	ifVersion uint64
	patch     []byte
}

// patch reads a merge patch and takes its reason out for the audit record.
func (c *call) patch() (patchBody, error) {
	ifVersion, err := c.needIfMatch()
	if err != nil {
		return patchBody{}, err
	}
	data, err := jsonBody(c.r, "application/merge-patch+json", "application/json")
	if err != nil {
		return patchBody{}, err
	}
	var only struct {
		Reason string `json:"reason"`
	}
	outcome, err := mergePatch([]byte(`{}`), data)
	if err != nil {
		return patchBody{}, err
	}
	if err := json.Unmarshal(outcome, &only); err != nil {
		return patchBody{}, refuse(wire.CodeInvalid, "reason", "must be a string")
	}
	c.by.Reason = only.Reason
	return patchBody{ifVersion: ifVersion, patch: data}, nil
}

// apply merges the patch into terms, which points to a struct of all that may
// be patched, filled in with what is.
func (p patchBody) apply(terms, into any) error {
	current, err := json.Marshal(terms)
	if err != nil {
		return err
	}
	outcome, err := mergePatch(current, p.patch)
	if err != nil {
		return err
	}
	return decodeStrict(outcome, into)
}

// page reads the parameters limit and cursor of a list.
func (c *call) page(list string) (after string, limit int, err error) {
	if limit, err = parseLimit(c.query.get("limit")); err != nil {
		return "", 0, err
	}
	after, err = parseCursor(list, c.query.get("cursor"))
	return after, limit, err
}

// listed turns a page of objects into an answer.
func listed[T, W any](name string, objects []T, next string, toWire func(T) W) (answer, error) {
	items := make([]W, 0, len(objects))
	for _, o := range objects {
		items = append(items, toWire(o))
	}
	return ok(wire.List[W]{Items: items, Next: makeCursor(name, next)}, 0)
}

// parsed reads a text from a path or query with its own parser. A path that
// can't name an object names none.
func pathID[T any](c *call, name string, parse func(string) (T, error)) (T, error) {
	v, err := parse(c.vars[name])
	if err != nil {
		return v, refuse(wire.CodeNotFound, "", "")
	}
	return v, nil
}

// acted does an action on the object that the path names, whose body says why.
func acted[ID, T any](c *call, parse func(string) (ID, error), act func(context.Context, registry.By, ID, uint64) (T, error)) (done T, err error) {
	id, err := pathID(c, "id", parse)
	if err != nil {
		return done, err
	}
	ifVersion, err := c.change()
	if err != nil {
		return done, err
	}
	return act(c.r.Context(), c.by, id, ifVersion)
}

// queryValue is pathID for a parameter; absent, it is the zero value.
func queryValue[T any](c *call, name string, parse func(string) (T, error)) (T, error) {
	var none T
	s := c.query.get(name)
	if s == "" {
		return none, nil
	}
	v, err := parse(s)
	if err != nil {
		return none, refuse(wire.CodeMalformed, name, publicText(err))
	}
	return v, nil
}
