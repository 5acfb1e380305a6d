package main

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/brokertest"
)

// What a text advises to type can be typed.
func TestEveryCommandThatATextNamesExists(t *testing.T) {
	a, _, _ := testApp("", nil)
	root := newRoot(a)
	found := 0
	check := func(where, text string) {
		for _, c := range commandsIn(text) {
			if c[0] == "administers" || c[0] == "this" {
				continue // said of brokerctl
			}
			found++
			if err := exists(root, c); err != nil {
				t.Errorf("%s: brokerctl %s: %v", where, strings.Join(c, " "), err)
			}
		}
	}
	for _, folder := range []string{"../../cmd", "../../api", "../../store", "../../issuer", "../../rotation", "../../guard", "../../internal/broker"} {
		for file, text := range literals(t, folder) {
			check(file, text)
		}
	}
	for file, text := range pages(t) {
		for _, code := range regexp.MustCompile("(?s)```.*?```|`[^`]*`").FindAllString(text, -1) {
			check(file, code)
		}
	}
	if found < 60 {
		t.Errorf("only %d commands found", found)
	}
}

// Lines that a page gives to paste have flags that the command knows, and all
// that it requires.
func TestEveryLineToPasteParses(t *testing.T) {
	found := 0
	for file, text := range pages(t) {
		for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(text, -1) {
			for _, args := range commandLines(block[1]) {
				found++
				a, _, _ := testApp("", nil)
				if err := parses(newRoot(a), args); err != nil {
					t.Errorf("%s: brokerctl %s: %v", file, strings.Join(args, " "), err)
				}
			}
		}
	}
	if found < 15 {
		t.Errorf("only %d lines found", found)
	}
}

// An error names what was done as the command that does it. A viewer who tries
// every example is refused by name.
func TestErrorsNameCommandsThatExist(t *testing.T) {
	b := brokertest.Start(t)
	account, key := b.Operator()
	t.Chdir(t.TempDir())
	env := map[string]string{envConfig: "config.yaml"}
	brokerctl := func(args ...string) error {
		a, out, _ := testApp("", env)
		root := newRoot(a)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		if err == nil && args[0] == "keygen" {
			err = os.WriteFile("worker.jwk", []byte(out.String()), 0o600)
		}
		return err
	}
	for _, args := range [][]string{
		{"keygen", "eve.pem"},
		{"login", "--issuer", b.URL(), "--account", account, "--key", key},
		{"account", "create", "eve", "--owner", "eve", "--reason", "r"},
		{"account", "credential", "add", "eve", "--public-key", "worker.jwk", "--reason", "r"},
		{"operator", "add", "eve", "--role", "viewer", "--reason", "r"},
		{"login", "--issuer", b.URL(), "--account", "eve", "--key", "eve.pem"},
	} {
		if err := brokerctl(args...); err != nil {
			t.Fatal(args, err)
		}
	}
	public, err := os.ReadFile("worker.jwk")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("new-keys.json", []byte(`{"keys":[`+string(public)+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	a, _, _ := testApp("", nil)
	root := newRoot(a)
	for _, group := range root.Commands() {
		switch group.Name() {
		case "tenant", "account", "audience", "grant", "issuer", "operator", "key", "explain":
		default:
			continue // no change, or none without files
		}
		leaves(group, func(c *cobra.Command) {
			for _, args := range commandLines(c.Example) {
				if c.Flags().Lookup("yes") != nil {
					args = append(args, "--yes")
				}
				var answer *client.Error
				switch err := brokerctl(args...); {
				case errors.As(err, &answer):
					named[answer.Op] = true
					if err := exists(root, strings.Fields(answer.Op)); err != nil {
						t.Errorf("%v is refused as %q: %v", args, answer.Op, err)
					}
				case err != nil:
					t.Log(args, err) // before it was sent
				}
			}
		})
	}
	if len(named) < 20 {
		t.Errorf("only %d refusals: %v", len(named), named)
	}
}

func leaves(c *cobra.Command, visit func(*cobra.Command)) {
	if !c.HasSubCommands() {
		visit(c)
	}
	for _, sub := range c.Commands() {
		leaves(sub, visit)
	}
}

// exists follows words down the tree of commands, to its leaf or their end.
func exists(root *cobra.Command, words []string) error {
	at := root
	for _, w := range words {
		if !at.HasSubCommands() {
			return nil
		}
		next := at
		for _, sub := range at.Commands() {
			if sub.Name() == w {
				next = sub
			}
		}
		if next == at {
			return errors.New(at.CommandPath() + " has no command " + w)
		}
		at = next
	}
	return nil
}

// parses checks a command line without running it.
func parses(root *cobra.Command, args []string) error {
	c, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if err := c.ValidateArgs(c.Flags().Args()); err != nil {
		return err
	}
	return errors.Join(c.ValidateRequiredFlags(), c.ValidateFlagGroups())
}

var (
	isFlag = regexp.MustCompile(`^--?[a-z]`)
	isWord = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

// commandsIn finds the words of each command that a text names.
func commandsIn(text string) (all [][]string) {
	for _, part := range strings.SplitAfter(text, "brokerctl")[1:] {
		if !strings.HasPrefix(part, " ") && !strings.HasPrefix(part, "\n") {
			continue
		}
		var words []string
		fields := strings.Fields(part)
		for i := 0; i < len(fields); i++ {
			if isFlag.MatchString(fields[i]) && len(words) == 0 {
				i++ // a global flag and its value
				continue
			}
			w := strings.TrimRight(fields[i], "`.,;:)'\"")
			if !isWord.MatchString(w) {
				break
			}
			if words = append(words, w); w != fields[i] {
				break // the sentence goes on
			}
		}
		if len(words) > 0 {
			all = append(all, words)
		}
	}
	return all
}

// commandLines splits the lines that begin with brokerctl into arguments, as a
// shell would, up to a pipe or a redirection.
func commandLines(text string) (all [][]string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(strings.TrimSpace(line), "brokerctl ")
		if !found {
			continue
		}
		var args []string
		for _, w := range regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`).FindAllString(rest, -1) {
			if w == "|" || w == ">" || w == "#" {
				break
			}
			args = append(args, strings.Trim(w, `"'`))
		}
		all = append(all, args)
	}
	return all
}

// literals are the texts of the Go files in and below a folder, without tests.
func literals(t *testing.T, folder string) func(func(string, string) bool) {
	return func(yield func(file, text string) bool) {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if text, err := strconv.Unquote(l.Value); err == nil {
						yield(path, text)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// pages are the texts for people.
func pages(t *testing.T) func(func(string, string) bool) {
	return func(yield func(file, text string) bool) {
		for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../deploy/*.md"} {
			files, err := filepath.Glob(pattern)
			if err != nil || len(files) == 0 {
				t.Errorf("%s: %v, %v", pattern, files, err)
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Error(err)
				}
				if !yield(file, string(text)) {
					return
				}
			}
		}
	}
}
