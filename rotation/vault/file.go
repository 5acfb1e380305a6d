package vault

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxFile bounds a file with a token, a secret id or a JWT.
const maxFile = 64 << 10

// required reports the first of the values, each after its name, that is missing.
func required(pairs ...string) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			return &ConfigError{"login", "needs " + pairs[i]}
		}
	}
	return nil
}

// checkMount refuses what can't be the path of an auth method; empty is the
// usual one.
func checkMount(mount string) error {
	if mount != "" && checkPath(mount) != nil {
		return &ConfigError{"mount", "not the path of an auth method"}
	}
	return nil
}

// or returns the mount, or the usual one.
func or(mount, usual string) string {
	if mount == "" {
		return usual
	}
	return mount
}

// readSecretFile is readWord for a file that is nobody else's: it was written
// for the broker, unlike a JWT, whose mode a platform chooses.
func readSecretFile(path string) (string, error) { return readFile(path, true) }

// readWord returns the one word in a file. Errors name the file and never show
// what is in it.
func readWord(path string) (string, error) { return readFile(path, false) }

func readFile(path string, private bool) (string, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // read only
	if private {
		if err := checkMode(f.Stat()); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	word, err := parseWord(data)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return word, nil
}

func checkSecretFile(path string) error {
	_, err := readSecretFile(path)
	return err
}

func checkWord(path string) error {
	_, err := readWord(path)
	return err
}

// othersMay are the bits of a mode for whoever is neither the owner nor of the
// group, which Kubernetes gives a pod's files to.
const othersMay = 0o007

// checkMode refuses a file that everybody on the machine may read or write: who
// reads it logs in as the broker, who writes it has the broker log in as he likes.
func checkMode(info os.FileInfo, err error) error {
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&othersMay != 0 {
		return fmt.Errorf("mode %04o lets everybody on this machine in: chmod o= it", mode)
	}
	return nil
}

func parseWord(data []byte) (string, error) {
	if len(data) > maxFile {
		return "", fmt.Errorf("over %d bytes", maxFile)
	}
	word := strings.Trim(string(data), " \t\r\n")
	if word == "" {
		return "", errors.New("empty")
	}
	if strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("not one word of printable characters")
	}
	return word, nil
}
