package broker

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestNotify(t *testing.T) {
	path := filepath.Join(shortTestFolder(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := notify(t.Context(), "READY=1"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	n, err := conn.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("%q, %v", b[:n], err)
	}

	t.Setenv("NOTIFY_SOCKET", path+"-none")
	if err := notify(t.Context(), "READY=1"); err == nil {
		t.Error("nobody listens and no error")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notify(t.Context(), "READY=1"); err != nil {
		t.Errorf("nobody asked: %v", err)
	}
}

// shortTestFolder is a temporary folder with a path that leaves room for a socket.
func shortTestFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "tb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}
