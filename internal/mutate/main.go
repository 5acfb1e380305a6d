// Mutate breaks each check listed in mutations.yaml, one at a time, and runs
// the test that must then go red. It fails where a test stays green, where a
// mutation no longer applies or compiles, and where a named test does not
// exist or fails without the mutation. The work tree is never touched: the
// changed file reaches the compiler through -overlay.
//
// With -for it goes through the list in a new order each time, and ends when that
// time is over: what one run leaves out, another has.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
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
const minimum = 60

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
	budget := flag.Duration("for", 0, "begin none after this time; 0: run all")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *list, *only, *parallel, *budget); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// run ends its output with the line that counts; why it failed comes before.
func run(ctx context.Context, list, only string, parallel int, budget time.Duration) error {
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
	if err := baseline(ctx, all, parallel); err != nil {
		return err
	}
	fmt.Printf("unbroken, every named test passes (%s)\n", since(start))
	if budget > 0 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) //nolint:gosec // any order will do
	}
	var mu sync.Mutex
	passed, failed := 0, 0
	each(all, parallel, func(m mutation) {
		if ctx.Err() != nil || budget > 0 && time.Since(start) > budget {
			return
		}
		began := time.Now()
		err := try(ctx, m)
		if ctx.Err() != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed++
			fmt.Printf("GREEN %s (%s, %s): %v\n", m.Check, m.File, since(began), err)
			return
		}
		passed++
		fmt.Printf("red   %s: %s (%s)\n", m.Check, m.Test, since(began))
	})
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if failed > 0 {
		fmt.Fprintln(os.Stderr, "mutate: a broken check went unnoticed")
	}
	if left := len(all) - passed - failed; left > 0 {
		fmt.Printf("%d of %d were left out, for want of time\n", left, len(all))
		if left > len(all)*3/4 {
			return errors.New("hardly any of the list was broken: give it more time")
		}
	}
	fmt.Printf("%d checks broken one by one in %s\n", passed+failed, since(start))
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
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

// baseline runs every named test unbroken: each must exist and pass. It also
// leaves everything but what a mutation changes in the build cache.
func baseline(ctx context.Context, all []mutation, parallel int) error {
	tests := make(map[string][]string) // by package
	var packages []string
	for _, m := range all {
		if !slices.Contains(packages, m.Package) {
			packages = append(packages, m.Package)
		}
		if !slices.Contains(tests[m.Package], m.Test) {
			tests[m.Package] = append(tests[m.Package], m.Test)
		}
	}
	var mu sync.Mutex
	var failed error
	each(packages, parallel, func(pkg string) {
		err := passes(ctx, pkg, tests[pkg])
		mu.Lock()
		defer mu.Unlock()
		failed = errors.Join(failed, err)
	})
	return failed
}

func passes(ctx context.Context, pkg string, tests []string) error {
	patterns := make([]string, len(tests))
	for i, test := range tests {
		patterns[i] = anchored(test)
	}
	out, err := goTest(ctx, pkg, strings.Join(patterns, "|"), "", 15*time.Minute)
	if err != nil {
		return fmt.Errorf("%s fails before anything is broken:\n%s", pkg, out)
	}
	for _, test := range tests {
		if !strings.Contains(out, "--- PASS: "+strings.ReplaceAll(test, " ", "_")+" (") {
			return fmt.Errorf("%s: no test %s ran", pkg, test)
		}
	}
	return nil
}

// each calls do for every item, in order, so many at once.
func each[T any](items []T, parallel int, do func(T)) {
	var wg sync.WaitGroup
	queue := make(chan T)
	for range max(1, parallel) {
		wg.Go(func() {
			for item := range queue {
				do(item)
			}
		})
	}
	for _, item := range items {
		queue <- item
	}
	close(queue)
	wg.Wait()
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
	out, err := goTest(ctx, m.Package, anchored(m.Test), overlay, 2*time.Minute)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		return fmt.Errorf("the mutation does not compile:\n%s", out)
	case err == nil:
		return errors.New("the test stayed green")
	case !strings.Contains(out, "--- FAIL: ") && !strings.Contains(out, "panic: ") && !strings.Contains(out, "fatal error: "):
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
	if err := os.WriteFile(changed, []byte(content), 0o600); err != nil { //nolint:gosec // a folder of our own, a name from the repository
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

// goTest builds without vet and debug information, half the time of a small
// test, and ends at the first failure. The overlay is in the environment, so that
// what a test builds is broken too.
func goTest(ctx context.Context, pkg, pattern, overlay string, timeout time.Duration) (string, error) {
	args := []string{"test", "-count=1", "-v", "-vet=off", "-ldflags=-s -w", "-failfast", "-timeout=" + timeout.String(), "-run", pattern}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...) //nolint:gosec // arguments come from the repository
	if overlay != "" {
		cmd.Env = append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func since(start time.Time) time.Duration { return time.Since(start).Round(100 * time.Millisecond) }
