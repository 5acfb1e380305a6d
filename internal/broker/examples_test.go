package broker

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestTheExampleWithVaultLoads(t *testing.T) {
	c, err := Load("../../deploy/broker.vault.example.yaml", NoEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	if d := c.Document(); d.Vault.Login != "approle" || d.Signing.Home != "vault-transit" || d.KEKVaultKey == "" {
		t.Errorf("it shows no broker with Vault: %+v", d)
	}
}

// The configuration in a manifest is one that the broker takes, and the files
// that it names are in what the manifest mounts.
func TestTheConfigurationsInManifestsLoad(t *testing.T) {
	for _, m := range []struct {
		file   string
		config func(t *testing.T, documents []any) string
		mounts func(t *testing.T, documents []any) []string
	}{
		{"../../deploy/kubernetes/broker.yaml", configInKubernetes, mountsInKubernetes},
		{"../../deploy/compose/compose.yaml", configInCompose, mountsInCompose},
	} {
		t.Run(path.Base(m.file), func(t *testing.T) {
			documents := readYAML(t, m.file)
			c, err := Parse([]byte(m.config(t, documents)), "/etc", NoEnvironment)
			if err != nil {
				t.Fatal(err)
			}
			d := c.Document()
			if d.Vault.Address == "" || d.Signing.Home != "vault-transit" || d.KEKVaultKey == "" {
				t.Errorf("it shows no broker with Vault: %+v", d)
			}
			mounts := m.mounts(t, documents)
			for _, file := range append([]string{d.DataDir, d.TLS.CertFile, d.TLS.KeyFile}, filesOf(&d.Vault)...) {
				if file != "" && !mounted(mounts, file) {
					t.Errorf("%s is not in what is mounted: %v", file, mounts)
				}
			}
		})
	}
}

// What makes the data folder in Kubernetes sees what the broker sees.
func TestInitInKubernetesSeesTheSame(t *testing.T) {
	documents := readYAML(t, "../../deploy/kubernetes/broker.yaml")
	pod := at(t, kind(t, documents, "Deployment"), "spec", "template", "spec")
	init := at(t, kind(t, readYAML(t, "../../deploy/kubernetes/init.yaml"), "Pod"), "spec")
	for _, same := range []string{"volumes", "securityContext", "serviceAccountName"} {
		if !reflect.DeepEqual(at(t, pod, same), at(t, init, same)) {
			t.Errorf("%s: not the same", same)
		}
	}
	serve, once := items(t, pod, "containers")[0], items(t, init, "initContainers")[0]
	for _, same := range []string{"volumeMounts", "image", "securityContext"} {
		if !reflect.DeepEqual(at(t, serve, same), at(t, once, same)) {
			t.Errorf("%s: not the same", same)
		}
	}
}

func filesOf(v *Vault) (files []string) {
	for _, f := range v.files() {
		files = append(files, *f)
	}
	return files
}

func mounted(mounts []string, file string) bool {
	for _, m := range mounts {
		if strings.HasPrefix(file, m+"/") {
			return true
		}
	}
	return false
}

func configInKubernetes(t *testing.T, documents []any) string {
	return text(t, kind(t, documents, "ConfigMap"), "data", "broker.yaml")
}

func mountsInKubernetes(t *testing.T, documents []any) (paths []string) {
	pod := at(t, kind(t, documents, "Deployment"), "spec", "template", "spec")
	named := map[string]bool{}
	for _, v := range items(t, pod, "volumes") {
		named[text(t, v, "name")] = true
	}
	for _, m := range items(t, items(t, pod, "containers")[0], "volumeMounts") {
		if !named[text(t, m, "name")] {
			t.Errorf("no volume %s", text(t, m, "name"))
		}
		paths = append(paths, text(t, m, "mountPath"))
	}
	return paths
}

func configInCompose(t *testing.T, documents []any) string {
	return text(t, documents[0], "configs", "broker", "content")
}

func mountsInCompose(t *testing.T, documents []any) (paths []string) {
	for _, v := range items(t, documents[0], "services", "broker", "volumes") {
		mount, _ := v.(string)
		name, rest, _ := strings.Cut(mount, ":")
		at(t, documents[0], "volumes", name)
		target, _, _ := strings.Cut(rest, ":")
		paths = append(paths, target)
	}
	return paths
}

func readYAML(t *testing.T, file string) (documents []any) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for d := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return documents
		} else if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, v)
	}
}

func kind(t *testing.T, documents []any, name string) any {
	t.Helper()
	for _, d := range documents {
		if text(t, d, "kind") == name {
			return d
		}
	}
	t.Fatalf("no %s", name)
	return nil
}

// at goes down a path of names.
func at(t *testing.T, v any, names ...string) any {
	t.Helper()
	for _, name := range names {
		members, _ := v.(map[string]any)
		next, there := members[name]
		if !there {
			t.Fatalf("no %s of %v", name, names)
		}
		v = next
	}
	return v
}

func text(t *testing.T, v any, names ...string) string {
	t.Helper()
	s, ok := at(t, v, names...).(string)
	if !ok {
		t.Fatalf("%v is no text", names)
	}
	return s
}

func items(t *testing.T, v any, names ...string) []any {
	t.Helper()
	l, ok := at(t, v, names...).([]any)
	if !ok || len(l) == 0 {
		t.Fatalf("%v is no list", names)
	}
	return l
}
