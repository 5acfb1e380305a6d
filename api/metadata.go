package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer"
)

// metadataMaxAge is how long clients may keep the metadata: it changes only
// with the configuration.
const metadataMaxAge = time.Hour

// metadata returns the document of RFC 8414, which is also what OpenID Connect
// discovery requires of a provider, minus an authorization endpoint: nobody
// signs in here with a browser.
func metadata(iss credential.IssuerURL, signing []credential.Algorithm) wire.Metadata {
	base := iss.String()
	methods := []string{"private_key_jwt", "client_secret_basic", "client_secret_post"}
	algs := []string{string(credential.ES256), string(credential.ES384), string(credential.EdDSA),
		string(credential.RS256), string(credential.PS256)}
	m := wire.Metadata{
		Issuer:                base,
		TokenEndpoint:         base + wire.PathToken,
		IntrospectionEndpoint: base + wire.PathIntrospect,
		RevocationEndpoint:    base + wire.PathRevoke,
		JWKSURI:               base + wire.PathJWKS,
		ResponseTypes:         []string{},
		GrantTypes:            []string{issuer.GrantClientCredentials, issuer.GrantTokenExchange},
		SubjectTypes:          []string{"public"},
		IDTokenAlgs:           []string{},
		TokenAuthMethods:      methods, TokenAuthAlgs: algs,
		IntrospectionAuthMethods: methods, IntrospectionAuthAlgs: algs,
		RevocationAuthMethods: methods, RevocationAuthAlgs: algs,
	}
	for _, a := range signing {
		m.IDTokenAlgs = append(m.IDTokenAlgs, string(a))
	}
	return m
}

// document is a public JSON document with its validator.
type document struct {
	body []byte
	etag string
}

func newDocument(v any) (*document, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return &document{body: body, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`}, nil
}

// serve answers GET and HEAD, with 304 for a client that has it already.
func (d *document) serve(w *response, r *http.Request, contentType string, maxAge time.Duration) {
	h := w.Header()
	h["Cache-Control"] = []string{"public, max-age=" + strconv.Itoa(int(maxAge/time.Second))}
	h["Etag"] = []string{d.etag}
	h["Access-Control-Allow-Origin"] = []string{"*"} // public, and read by browsers' debuggers of tokens too
	if noneMatch(r.Header, d.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(d.body))}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(d.body); err != nil {
		w.cause = err
	}
}

// noneMatch compares If-None-Match weakly (RFC 9110 section 13.1.2).
func noneMatch(h http.Header, etag string) bool {
	for _, value := range h["If-None-Match"] {
		for _, candidate := range strings.Split(value, ",") {
			candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
			if candidate == etag || candidate == "*" {
				return true
			}
		}
	}
	return false
}

// keySet keeps the finished JWKS document for as long as the keys are the same.
type keySet struct {
	keys  Keys
	ready atomic.Pointer[readyKeySet]
}

type readyKeySet struct {
	set jwks.Set
	doc *document
}

func (k *keySet) document() (*document, error) {
	set := k.keys.Public()
	if r := k.ready.Load(); r != nil && sameKeys(r.set, set) {
		return r.doc, nil
	}
	doc, err := newDocument(set)
	if err != nil {
		return nil, err
	}
	k.ready.Store(&readyKeySet{set, doc})
	return doc, nil
}

func sameKeys(a, b jwks.Set) bool {
	if a.Len() != b.Len() {
		return false
	}
	others := b.Keys()
	for i, k := range a.Keys() {
		if !k.Equal(others[i]) {
			return false
		}
	}
	return true
}
