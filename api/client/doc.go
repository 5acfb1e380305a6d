// Package client is what a workload, and brokerctl, talk to the broker with: a
// source of access tokens, the calls of a downstream service (introspection,
// revocation, keys) and the operators' calls.
//
// A Client proves one account's identity. Its tokens are cached per tenant,
// audience and scope and never handed out for another of these: an answer of
// the broker that is not what was asked is refused, not repaired. Tokens and
// assertions go to the configured issuer and to the hosts that the caller
// named, and follow no redirect elsewhere.
//
// A token that the Client returns was not verified, only compared with the
// request: a service that receives tokens uses the verifier package.
package client
