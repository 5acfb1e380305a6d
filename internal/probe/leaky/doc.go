// Package leaky is a service that holds its tenants apart with package guard, as
// it should, until a Leak is switched on: then one place forgets the tenant, in a
// way that real services do. It is what the tests of internal/probe, and of
// brokerctl, probe. Nothing that runs imports it.
package leaky
