// Mutate breaks each check listed in mutations.yaml, one at a time, and runs
// the test that must then go red. It fails where a test stays green, where a
// mutation no longer applies or compiles, and where a named test does not
// exist or fails without the mutation. The work tree is never touched: the
// changed file reaches the compiler through -overlay.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
)

// minimum is how many checks the list must hold.
const minimum = 40

// mutation is one check, how to break it, and the test that must notice.
type mutation struct {
	Check   string `yaml:"check"`   // the rule in words
	File    string `yaml:"file"`    // where it is held
	Find    string `yaml:"find"`    // must occur exactly once
	Replace string `yaml:"replace"` // what it becomes
	Package string `yaml:"package"` // of the test
	Test    string `yaml:"test"`    // name, with /subtest if wanted
}

func main() {
	list := flag.String("list", "internal/mutate/mutations.yaml", "the mutations")
	only := flag.String("only", "", "run only mutations whose check matches this expression")
	parallel := flag.Int("parallel", 2, "how many to run at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *list, *only, *parallel); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, list, only string, parallel int) error {
	all, err := load(list)
	if err != nil {
		return err
	}
	if only != "" {
		pattern, err := regexp.Compile(only)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(m mutation) bool { return !pattern.MatchString(m.Check) })
	} else if len(all) < minimum {
		return fmt.Errorf("%d mutations, at least %d", len(all), minimum)
	}
	start := time.Now()
	if err := baseline(ctx, all); err != nil {
		return err
	}
	failed := each(ctx, all, parallel)
	fmt.Printf("%d passed, %d failed\n", len(all)-failed, failed)
	fmt.Printf("%d checks broken one by one in %s\n", len(all), time.Since(start).Round(time.Second))
	if failed > 0 {
		return errors.New("a broken check went unnoticed")
	}
	return nil
}

func load(path string) ([]mutation, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the list is part of the repository
	if err != nil {
		return nil, err
	}
	var all []mutation
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&all); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, m := range all {
		if m.Check == "" || m.File == "" || m.Find == "" || m.Package == "" || m.Test == "" {
			return nil, fmt.Errorf("%q: check, file, find, package and test are required", m.Check)
		}
		if seen[m.Check] {
			return nil, fmt.Errorf("%q is listed twice", m.Check)
		}
		seen[m.Check] = true
	}
	return all, nil
}

// baseline runs every named test unbroken: each must exist and pass.
func baseline(ctx context.Context, all []mutation) error {
	tests := make(map[string][]string) // by package
	for _, m := range all {
		top, _, _ := strings.Cut(m.Test, "/")
		if !slices.Contains(tests[m.Package], top) {
			tests[m.Package] = append(tests[m.Package], top)
		}
	}
	for pkg, names := range tests {
		out, err := goTest(ctx, pkg, "^("+strings.Join(names, "|")+")$", "")
		if err != nil {
			return fmt.Errorf("%s fails before anything is broken:\n%s", pkg, out)
		}
		for _, name := range names {
			if !strings.Contains(out, "--- PASS: "+name) {
				return fmt.Errorf("%s: no test %s ran", pkg, name)
			}
		}
	}
	return nil
}

func each(ctx context.Context, all []mutation, parallel int) (failed int) {
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		slots = make(chan struct{}, parallel)
	)
	for _, m := range all {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			err := try(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed++
				fmt.Printf("GREEN %s (%s): %v\n", m.Check, m.File, err)
				return
			}
			fmt.Printf("red   %s: %s\n", m.Check, m.Test)
		})
	}
	wg.Wait()
	return failed
}

// try breaks one check and returns nil when its test noticed.
func try(ctx context.Context, m mutation) error {
	source, err := os.ReadFile(m.File)
	if err != nil {
		return err
	}
	if n := strings.Count(string(source), m.Find); n != 1 {
		return fmt.Errorf("the text to replace occurs %d times", n)
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := writeOverlay(dir, m.File, strings.Replace(string(source), m.Find, m.Replace, 1))
	if err != nil {
		return err
	}
	out, err := goTest(ctx, m.Package, anchored(m.Test), overlay)
	switch {
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		return fmt.Errorf("the mutation does not compile:\n%s", out)
	case err == nil:
		return errors.New("the test stayed green")
	case !strings.Contains(out, "--- FAIL: ") && !strings.Contains(out, "panic: "):
		return fmt.Errorf("no test failed:\n%s", out)
	}
	return nil
}

func writeOverlay(dir, file, content string) (string, error) {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	changed := filepath.Join(dir, filepath.Base(file))
	if err := os.WriteFile(changed, []byte(content), 0o600); err != nil {
		return "", err
	}
	doc, err := json.Marshal(map[string]map[string]string{"Replace": {absolute: changed}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, doc, 0o600)
}

// anchored turns TestA/sub into the -run expression for just that one.
func anchored(test string) string {
	parts := strings.Split(test, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

func goTest(ctx context.Context, pkg, pattern, overlay string) (string, error) {
	args := []string{"test", "-count=1", "-v", "-timeout=5m", "-run", pattern}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.CommandContext(ctx, "go", append(args, pkg)...).CombinedOutput() //nolint:gosec // arguments come from the repository
	return string(out), err
}
