package devpostgres

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// playParent has this test's program play one that starts a server and is then
// killed.
const playParent = "DEVPOSTGRES_TEST_PLAY_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(playParent) != "" {
		s, err := Start(context.Background(), Options{})
		if err != nil {
			panic(err)
		}
		fmt.Println(s.SuperDSN())
		fmt.Println(s.folder.Path())
		select {} // until it is killed
	}
	os.Exit(m.Run())
}

// The server runs as another user, whom the kernel asks about signals too.
func TestTheServerDiesWithAKilledParent(t *testing.T) {
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), playParent+"=1")
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	dsn, folder := readLine(t, lines), readLine(t, lines)
	t.Cleanup(func() { _ = os.RemoveAll(folder) }) // the killed parent could not
	c := connect(t, dsn)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed, as wanted
	patient, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.WaitForNotification(patient); err == nil || patient.Err() != nil {
		t.Errorf("the server still holds the connection: %v", err)
	}
}

func readLine(t *testing.T, from *bufio.Reader) string {
	t.Helper()
	line, err := from.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}
