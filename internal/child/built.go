package child

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Built finds a server that script/once has built into the user's cache, by its
// name and version.
func Built(name, version string) (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME") // as the script has it, on every system
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("%s %s: %w", name, version, err)
		}
		cache = filepath.Join(home, ".cache")
	}
	path := filepath.Join(cache, "tenantbroker", "bin", name+"-"+version)
	if _, err := exec.LookPath(path); err != nil {
		return "", fmt.Errorf("%s %s is not built: run script/%s: %w", name, version, name, err)
	}
	return path, nil
}
