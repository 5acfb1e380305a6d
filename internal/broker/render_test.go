package broker

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRenderReadsBack(t *testing.T) {
	d := Default()
	d.Issuer, d.DataDir, d.KEKFile = "https://broker.example.com", "/var/lib/x: y", "/etc/kek"
	d.TLS.CertFile, d.TLS.KeyFile = "/c", "/k"
	d.Timeouts.Read = 90 * time.Second
	d.Development.AllowLoopbackHTTP = true
	c, err := Parse(Render(d), "/", NoEnvironment)
	if err != nil {
		t.Fatalf("%v\n%s", err, Render(d))
	}
	if c.Document() != d {
		t.Errorf("got %+v\nwant %+v", c.Document(), d)
	}
}

// Taking the # off every key must give a valid document too: the comments are
// what an operator copies from.
func TestCommentedKeysAreTheDefaults(t *testing.T) {
	d := Default()
	d.Issuer, d.DataDir, d.KEKFile = "https://broker.example.com", "/data", "/kek"
	var lines []string
	for line := range strings.Lines(string(Render(d))) {
		bare := strings.Replace(line, "# ", "", 1)
		if name, _, ok := strings.Cut(strings.TrimSpace(bare), ":"); ok && !strings.Contains(name, " ") {
			line = bare
		}
		lines = append(lines, line)
	}
	c, err := Parse([]byte(strings.Join(lines, "")), "/", NoEnvironment)
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(lines, ""))
	}
	if c.Document() != d {
		t.Errorf("got %+v\nwant %+v", c.Document(), d)
	}
}

var update = flag.Bool("update", false, "rewrite deploy/broker.example.yaml")

func TestExampleConfigurationLoadsAndIsComplete(t *testing.T) {
	const path = "../../deploy/broker.example.yaml"
	c, err := Load(path, NoEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	want := Render(c.Document())
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Error("deploy/broker.example.yaml is not what Render writes: run go test ./internal/broker -update")
	}
}
