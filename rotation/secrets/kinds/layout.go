package kinds

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Layout says where the values of tenants lie in Vault.
type Layout struct {
	Mount   string // of the KV engine, e.g. "secret"
	Tenants string // folder with a folder for each tenant, e.g. "tenants"
	Shared  string // folder of what is of no tenant, e.g. "shared"
	// Namespace is the one of the broker's own calls, by its whole path (Vault
	// Enterprise): where a spec names none, it is meant.
	Namespace string
}

// DefaultLayout is used where nothing else is configured.
func DefaultLayout() Layout { return Layout{Mount: "secret", Tenants: "tenants", Shared: "shared"} }

// Check returns the key that is wrong, and why. The two folders are apart, so
// that no tenant's name leads into what is shared.
func (l Layout) Check() (key string, err error) {
	for _, part := range []struct{ key, path string }{{"mount", l.Mount}, {"tenant_folder", l.Tenants}, {"shared_folder", l.Shared}} {
		if err := checkPath(part.key, part.path, maxName); err != nil {
			return part.key, errors.New("segments of letters, digits and _ . - between single slashes")
		}
	}
	if strings.HasPrefix(l.Tenants+"/", l.Shared+"/") || strings.HasPrefix(l.Shared+"/", l.Tenants+"/") {
		return "shared_folder", errors.New("must not be within tenant_folder, nor the other way round")
	}
	return "", nil
}

// rootNamespace is how Vault calls the namespace without a name.
const rootNamespace = "root"

// full is the one spelling of a place in Vault, however a spec divides it into
// namespace, mount and path: a call for "b/c" in the namespace "a" goes where one
// for "c" in "a/b" goes.
func (l Layout) full(namespace, mount, path string) string {
	var parts []string
	for _, part := range []string{cmp.Or(namespace, strings.Trim(l.Namespace, "/")), mount, path} {
		if part != "" && (part != rootNamespace || len(parts) > 0) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/")
}

// KVResource is what a secret with a value at this place claims.
func (l Layout) KVResource(namespace, mount, path string) string {
	return "kv::" + l.full(namespace, mount, path)
}

// checkNamespace holds a namespace to its one spelling.
func checkNamespace(namespace string) error {
	if namespace == "" {
		return nil
	}
	if first, _, _ := strings.Cut(namespace, "/"); strings.EqualFold(first, rootNamespace) {
		return registry.Invalid("spec.namespace", "%s is the namespace without a name: leave it out", rootNamespace)
	}
	return checkPath("spec.namespace", namespace, maxPath)
}

// verbs are what stands between mount and path in calls of a KV engine.
var verbs = []string{"data", "metadata", "delete", "undelete", "destroy", "subkeys", "config"}

// checkMount refuses, as a KV engine's mount, a place within one: its calls would
// be for other values of that engine.
func (l Layout) checkMount(namespace, mount string) error {
	if err := checkPath("spec.mount", mount, maxName); err != nil {
		return err
	}
	for _, segment := range strings.Split(mount, "/")[1:] {
		if slices.Contains(verbs, segment) {
			return registry.Invalid("spec.mount", "%q is no part of a mount: it is what calls to one have after it", segment)
		}
	}
	// Vault mounts no engine below another: this is the same one by another name.
	values := l.full("", l.Mount, "")
	if strings.HasPrefix(l.full(namespace, mount, ""), values+"/") {
		return registry.Invalid("spec.mount", "lies within %s, where values are: name that, and the rest in spec.path", l.Mount)
	}
	return nil
}
