// Package script runs the scripts on modules in which something is wrong.
package script

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	module  = "module example.com/m\n\ngo 1.26\n"
	code    = "package m\n\nfunc One() int { return 1 }\n"
	passing = "package m\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) { if One() != 1 { t.Fatal() } }\n"
)

// A script that can't fail guards nothing.
func TestScriptsFailWhenTheyShould(t *testing.T) {
	begin := "package m\n\nimport \"testing\"\n\n"
	for name, k := range map[string]struct {
		script string
		files  map[string]string
		fails  bool
		says   []string
	}{
		"all is well":        {"test", map[string]string{"m_test.go": passing}, false, []string{"ok", "example.com/m\t"}},
		"no test at all":     {"test", nil, true, []string{"no test ran"}},
		"a test was skipped": {"test", map[string]string{"m_test.go": passing, "skip_test.go": begin + `func TestTwo(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Skip("the reason") }) }`}, true, []string{"nothing may be", "example.com/m TestTwo/sub", "the reason", "ok"}},
		"a test failed":      {"test", map[string]string{"m_test.go": passing, "fail_test.go": begin + `func TestTwo(t *testing.T) { t.Log("before"); t.Error("the reason") }`}, true, []string{"--- FAIL: TestTwo", "before", "the reason", "failed:\n  example.com/m"}},
		"a test panicked":    {"test", map[string]string{"fail_test.go": begin + `func TestTwo(t *testing.T) { panic("the reason") }`}, true, []string{"the reason", "goroutine"}},
		"does not compile":   {"test", map[string]string{"m_test.go": begin + "func TestTwo(t *testing.T) { undefined() }"}, true, []string{"undefined: undefined", "build failed"}},

		"fuzz targets that don't compile": {"fuzz", map[string]string{"m_test.go": begin + "func FuzzOne(f *testing.F) { undefined() }"}, true, []string{"undefined: undefined", "don't build"}},
		"no fuzz target":                  {"fuzz", map[string]string{"m_test.go": passing}, false, nil},
		"a fuzz target":                   {"fuzz", map[string]string{"m_test.go": begin + "func FuzzOne(f *testing.F) { f.Fuzz(func(*testing.T, []byte) {}) }"}, false, []string{"== example.com/m FuzzOne"}},

		"all is covered":            {"cover", map[string]string{"m_test.go": passing}, false, []string{"100.0%  example.com/m"}},
		"little is covered":         {"cover", map[string]string{"m_test.go": strings.Replace(passing, "One() != 1", "false", 1)}, true, []string{"0.0%  example.com/m", "below 90%"}},
		"a test failed under cover": {"cover", map[string]string{"m_test.go": begin + `func TestTwo(t *testing.T) { t.Error("the reason") }`}, true, []string{"--- FAIL: TestTwo", "the reason"}},
		"no compiling under cover":  {"cover", map[string]string{"m_test.go": begin + "func TestTwo(t *testing.T) { undefined() }"}, true, []string{"undefined: undefined"}},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			files := map[string]string{"go.mod": module, "m.go": code}
			maps.Copy(files, k.files)
			for file, text := range files {
				write(t, filepath.Join(folder, file), text)
			}
			for _, file := range []string{k.script, "report/main.go"} {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(folder, "script", file), string(text))
			}
			var args []string
			if k.script == "cover" {
				args = []string{"."}
			}
			cmd := exec.CommandContext(t.Context(), filepath.Join(folder, "script", k.script), args...)
			cmd.Env = append(os.Environ(), "FUZZTIME=1x")
			out, err := cmd.CombinedOutput()
			if (err != nil) != k.fails {
				t.Errorf("%v\n%s", err, out)
			}
			for _, text := range k.says {
				if !strings.Contains(string(out), text) {
					t.Errorf("it does not say %q:\n%s", text, out)
				}
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}
