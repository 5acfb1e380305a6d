// Package openapi makes a description for package probe from the OpenAPI document
// (3.0 or 3.1) of a service: which objects there are, how one comes to be, and
// every way in which it could leave the service that the document tells of.
//
// It guesses nothing that would make a probe prove less than it seems to: what
// can't be derived becomes a Note that says why and what to write, in the
// description that comes out or as x-tenantbroker-probe in the document.
//
// It reads what it is given and nothing else: a reference to another document is
// an error.
package openapi
