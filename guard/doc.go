// Package guard is what a service puts between a verified token and its data: a
// valid token is not enough, each object has to be the token's tenant's.
//
//	g, err := guard.New(guard.Config{Verifier: tokens})
//	mux.Handle("GET /orders/{id}", g.Handler(guard.Route{Scopes: read}, orders))
//
//	func orders(w http.ResponseWriter, r *http.Request) {
//		order := …load by id…
//		if err := guard.Check(r.Context(), guard.Resource{Tenant: order.Tenant, Type: "order", ID: order.ID}); err != nil {
//			guard.Refuse(w, r, err)
//			return
//		}
//
// Handler lets in only requests with one bearer token that the verifier accepts,
// in the one place where it belongs (RFC 6750 section 2.1), with the route's
// scopes, and whose own idea of the tenant, wherever the route says that it is
// written, is the token's. Check is for the moment at which the object is known:
// it denies by default, also where no token came this far, and leaves one line
// per decision with tenant, subject, actor, client, resource and reason.
//
// What is let in is looked at again on each Check: a token that expired or was
// revoked meanwhile opens nothing more.
//
// The package compiles the verifier and the standard library. Its neighbours
// bring what they are for: grpcguard, promguard, pgguard, cacheguard, jobguard,
// and guardtest, which tries to cross.
package guard
