package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxConfigBytes bounds a configuration file.
const maxConfigBytes = 1 << 20

// Load reads the configuration file at path, lets the environment (lookup,
// usually os.LookupEnv) override it, and validates the result. Relative file
// names in it count from the file's folder; those in the environment from the
// working folder.
//
// Errors name the file and line, or the environment variable, that is wrong.
func Load(path string, lookup func(string) (string, bool)) (Config, error) {
	data, err := readBounded(path, maxConfigBytes)
	if err == nil {
		err = checkWritable(path)
	}
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	config, err := Parse(data, filepath.Dir(path), lookup)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	config.source = path
	return config, nil
}

// NoEnvironment is a lookup that finds nothing: what is set for a broker in
// earnest must not lead a throw-away one to its data.
func NoEnvironment(string) (string, bool) { return "", false }

// Parse is Load for a document in memory; relative file names in it count from
// folder.
func Parse(data []byte, folder string, lookup func(string) (string, bool)) (Config, error) {
	d := Default()
	if err := d.decode(data); err != nil {
		return Config{}, err
	}
	d.resolve(folder)
	set, err := d.override(lookup)
	if err != nil {
		return Config{}, err
	}
	config, err := d.Validate()
	if err != nil {
		return Config{}, located(err, data, set)
	}
	return config, nil
}

// decode reads exactly one YAML document and refuses keys that it doesn't know.
func (d *Document) decode(data []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(d); err != nil && !errors.Is(err, io.EOF) {
		return plain(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document")
	}
	return nil
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// plain takes the program's own names out of a YAML error.
func plain(err error) error {
	var several *yaml.TypeError
	if !errors.As(err, &several) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	lines := make([]string, 0, len(several.Errors))
	for _, line := range several.Errors {
		lines = append(lines, unknownField.ReplaceAllString(line, "unknown key $1"))
	}
	return errors.New(strings.Join(lines, "; "))
}

// resolve makes the file names of the document count from folder.
func (d *Document) resolve(folder string) {
	names := append([]*string{&d.TLS.CertFile, &d.TLS.KeyFile, &d.DataDir, &d.KEKFile, &d.Leases.TargetsFile,
		&d.Check.CertFile, &d.Check.KeyFile, &d.Check.ClientCAFile}, d.Vault.files()...)
	for _, name := range names {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(folder, *name)
		}
	}
}

// located adds to a KeyError where its key was set.
func located(err error, data []byte, set []string) error {
	var wrong *KeyError
	if !errors.As(err, &wrong) {
		return err
	}
	name := variableName(wrong.Key)
	for _, s := range set {
		if s == name {
			return fmt.Errorf("environment %s: %w", name, err)
		}
	}
	if line := lineOf(data, strings.Split(wrong.Key, ".")); line > 0 {
		return fmt.Errorf("line %d: %w", line, err)
	}
	return err
}

// lineOf returns the line on which the key at path stands, 0 if it is absent.
func lineOf(data []byte, path []string) int {
	var document yaml.Node
	if yaml.Unmarshal(data, &document) != nil || len(document.Content) == 0 {
		return 0
	}
	node, line := document.Content[0], 0
	for _, name := range path {
		var found *yaml.Node
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				found, line = node.Content[i+1], node.Content[i].Line
			}
		}
		if found == nil {
			return 0
		}
		node = found
	}
	return line
}

// readBounded reads a whole file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: over %d bytes", path, limit)
	}
	return data, nil
}
