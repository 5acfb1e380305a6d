package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

const envGuardDSN = "BROKERCTL_GUARD_DSN"

// Bounds of a connection.
const (
	maxDSN         = 16 << 10
	connectTimeout = 10 * time.Second // unless the DSN says
)

// What became of a connection. Match with errors.Is.
var (
	errDatabase       = errors.New("the database")
	errDatabaseDenied = errors.New("the database refuses the login")
	errNoDatabase     = errors.New("there is no such database")
)

// errDSN never holds the text, in which a password may be.
var errDSN = errors.New("is not a connection string: host=HOST dbname=NAME user=USER, or postgres://USER@HOST/NAME")

// databaseConfig says where to connect.
type databaseConfig struct{ pgx *pgx.ConnConfig }

// databaseConfig finds the database: by a flag, a file, our variable, or libpq's.
func (a *app) databaseConfig(flag, file string) (*databaseConfig, error) {
	source, dsn := "--dsn", flag
	switch {
	case flag != "":
		if err := withoutPassword(flag); err != nil {
			return nil, usageError{fmt.Errorf("--dsn %w", err)}
		}
	case file != "":
		data, err := readDSNFile(file)
		if err != nil {
			return nil, err
		}
		source, dsn = file, strings.TrimSpace(data)
		if dsn == "" { // libpq's own database would be another one
			return nil, usageError{fmt.Errorf("%s %w", source, errDSN)}
		}
	case a.getenv(envGuardDSN) != "":
		source, dsn = "$"+envGuardDSN, a.getenv(envGuardDSN)
	case a.getenv("PGHOST")+a.getenv("PGSERVICE")+a.getenv("PGDATABASE") == "":
		return nil, usageError{errors.New("which database? Say --dsn, --dsn-file, $" + envGuardDSN + ", or PGHOST, PGSERVICE or PGDATABASE")}
	default:
		source = "the variables of libpq (PGHOST, PGSERVICE, …)"
	}
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s %w", source, errDSN)}
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec // as pgguard: nothing is left prepared
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "brokerctl guard check"
	}
	return &databaseConfig{c}, nil
}

func readDSNFile(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // the path is the user's own choice
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("%s has mode %04o: others could read the password; run chmod 600 on it", path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxDSN+1))
	if err == nil && len(data) > maxDSN {
		return "", fmt.Errorf("%s is longer than %d bytes", path, maxDSN)
	}
	return string(data), err
}

// errPassword does not repeat it.
var errPassword = errors.New("holds a password, which others see in the list of processes: use --dsn-file, $" + envGuardDSN + " or PGPASSFILE, and change the password")

// passwordKey finds a key that holds a password: password, sslpassword. More is
// taken for one than libpq would take.
var passwordKey = regexp.MustCompile(`(?i)password\s*=`)

// withoutPassword refuses a connection string for a command line that holds a
// password, or that can't be read well enough to say so.
func withoutPassword(dsn string) error {
	if passwordKey.MatchString(dsn) {
		return errPassword
	}
	if !strings.Contains(dsn, "://") {
		return nil
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return errDSN
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errDSN
	}
	if _, has := u.User.Password(); has {
		return errPassword
	}
	for key := range query {
		if passwordKey.MatchString(key + "=") {
			return errPassword
		}
	}
	return nil
}

func (c *databaseConfig) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.ConnectConfig(ctx, c.pgx)
}

// explain says what an error of the database means, without the password, should
// a server repeat it.
func (c *databaseConfig) explain(err error) error {
	text := err.Error()
	if c.pgx.Password != "" {
		text = strings.ReplaceAll(text, c.pgx.Password, "…")
	}
	said, _ := errors.AsType[*pgconn.PgError](err)
	_, unconnected := errors.AsType[*pgconn.ConnectError](err)
	network, isNetwork := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, pgguard.ErrName), errors.Is(err, pgguard.ErrNoSuch), errors.Is(err, pgguard.ErrLimit):
		return usageError{errors.New(text)}
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %s", context.Canceled, text)
	case said != nil && (strings.HasPrefix(said.Code, "28") || unconnected && said.Code == "42501"):
		return fmt.Errorf("%w: %s", errDatabaseDenied, text)
	case said != nil && said.Code == "3D000":
		return fmt.Errorf("%w: %s", errNoDatabase, text)
	case said != nil && busy(said.Code), said == nil && unconnected, isNetwork && network != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %s", errDatabase, text)
	}
	return errors.New(text)
}

// busy reports whether a server may do it later: no connection or resources, a
// timeout of a statement or a lock, a start or an end.
func busy(code string) bool {
	for _, prefix := range []string{"08", "53", "57", "55P03", "25P0"} {
		if strings.HasPrefix(code, prefix) {
			return true
		}
	}
	return false
}

// unverifiedServer reports whether somebody else could answer for the database.
func unverifiedServer(c *databaseConfig) bool {
	open := func(host string, tls bool) bool {
		address, err := netip.ParseAddr(host)
		return !tls && !strings.HasPrefix(host, "/") && host != "localhost" && (err != nil || !address.IsLoopback())
	}
	verified := func(c *pgconn.FallbackConfig) bool {
		return c.TLSConfig != nil && (!c.TLSConfig.InsecureSkipVerify || c.TLSConfig.VerifyPeerCertificate != nil)
	}
	all := append([]*pgconn.FallbackConfig{{Host: c.pgx.Host, TLSConfig: c.pgx.TLSConfig}}, c.pgx.Fallbacks...)
	for _, f := range all {
		if open(f.Host, verified(f)) {
			return true
		}
	}
	return false
}
