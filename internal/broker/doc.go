// Package broker puts the parts together: from a configuration to a running
// broker with its listeners, signing keys, audit log and housekeeping. It also
// makes a new data folder, takes backups and restores them.
//
// It refuses a configuration with an unknown key, plain HTTP beyond loopback
// (unless told in so many words), files that others could read, and to write
// over anything that exists.
package broker
