package main

import (
	"os"
	"runtime/debug"
)

// Garbage collection, unless GOGC and GOMEMLIMIT say otherwise: the live heap
// is small and each request leaves garbage, so collecting at twice its size
// costs a tenth of the processor for memory that nobody misses.
const (
	gcPercent   = 400
	memoryLimit = 640 << 20 // bytes; beyond it collections get frequent again
)

func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}
