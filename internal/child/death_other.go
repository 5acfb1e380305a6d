//go:build !linux

package child

import "syscall"

// Elsewhere a child outlives a parent that was killed.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
