package broker

import (
	"context"
	"net"
	"os"
	"time"
)

// notify tells the service manager about the state of this process
// (sd_notify(3)), if it asked for that by NOTIFY_SOCKET. A failure is not the
// broker's: it is returned for the log.
func notify(ctx context.Context, state string) error {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	if address[0] == '@' { // an abstract socket
		address = "\x00" + address[1:]
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unixgram", address)
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	if closeErr := conn.Close(); err == nil {
		err = closeErr
	}
	return err
}
