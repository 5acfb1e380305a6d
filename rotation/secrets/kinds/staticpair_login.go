package kinds

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tenantbroker/tenantbroker/credential"
)

// loginTimeout bounds one login with what it asks.
const loginTimeout = 8 * time.Second

// errRefused says that PostgreSQL refuses user and password.
var errRefused = errors.New("the login is refused")

// errNoPostgres says that PostgreSQL can't be reached or doesn't serve.
var errNoPostgres = errors.New("PostgreSQL can't be asked")

// login logs in as a user, makes sure that the session is this user's, and asks
// something in a transaction that can't write. No error holds more than codes
// and the names of the spec: the driver's own hold the password.
func (p *Postgres) login(ctx context.Context, user string, password credential.Secret, ask func(context.Context, pgx.Tx) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	config, err := p.config(user, password)
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return p.explain(user, err)
	}
	defer func() {
		if closing := conn.Close(ctx); closing != nil && err == nil {
			err = p.explain(user, closing)
		}
	}()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return p.explain(user, err)
	}
	var session string
	if err := tx.QueryRow(ctx, "SELECT session_user").Scan(&session); err != nil {
		return p.explain(user, err)
	}
	if session != user {
		return fmt.Errorf("%w: a login as %s on %s makes a session of %s", errRefused, user, p.address(), session)
	}
	if ask == nil {
		return nil
	}
	return ask(ctx, tx)
}

// query returns what runs the spec's statement.
func (s *StaticPairSpec) query(user string) func(context.Context, pgx.Tx) error {
	if s.Query == "" {
		return nil
	}
	return func(ctx context.Context, tx pgx.Tx) error {
		// Exec would take several statements, the first of which ends the transaction.
		if _, err := tx.Conn().PgConn().ExecParams(ctx, s.Query, nil, nil, nil, nil).Close(); err != nil {
			return fmt.Errorf("the query of the spec fails as %s: %w", user, s.Postgres.explain(user, err))
		}
		return nil
	}
}

// config is made of the spec alone: all that the driver takes from the
// environment is overwritten.
func (p *Postgres) config(user string, password credential.Secret) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig("host=localhost port=5432 user=x dbname=x sslmode=disable connect_timeout=5 passfile=/dev/null")
	if err != nil {
		return nil, errors.New("the PostgreSQL driver stumbles over a variable PG… of the environment, which counts for nothing here: unset it")
	}
	config.Host, config.Port, config.Database = p.Host, uint16(p.Port), p.Database //nolint:gosec // checked with the spec
	config.User, config.Password = user, string(password.Reveal())
	config.Fallbacks, config.ValidateConnect, config.SSLNegotiation, config.KerberosSrvName, config.KerberosSpn = nil, nil, "", "", ""
	config.RequireAuth = "scram-sha-256" // by which a password is proven and not told
	config.RuntimeParams = map[string]string{"application_name": "tenantbroker"}
	// Without names of statements, so that a pooler may be in between.
	config.DefaultQueryExecMode, config.StatementCacheCapacity, config.DescriptionCacheCapacity = pgx.QueryExecModeExec, 0, 0
	if p.SSLMode == sslVerifyFull {
		config.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: p.Host}
		if p.CA != "" {
			config.TLSConfig.RootCAs = authorities(p.CA)
		}
	}
	return config, nil
}

func (p *Postgres) address() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.Port)) }

// statementWords are for the codes that a query of a spec gets mostly.
var statementWords = map[string]string{
	"42501": "insufficient privilege", "42601": "syntax error", "42703": "no such column", "42883": "no such function", "42P01": "no such table",
}

// explain says what an error of the driver means.
func (p *Postgres) explain(user string, err error) error {
	var refused *pgconn.PgError
	var certificate *tls.CertificateVerificationError
	switch {
	case !errors.As(err, &refused):
	case strings.HasPrefix(refused.Code, "28"): // invalid authorization
		return fmt.Errorf("%w for %s on %s (SQLSTATE %s)", errRefused, user, p.address(), refused.Code)
	case refused.Code == "3D000":
		return fmt.Errorf("%w: %s has no database %s", errNoPostgres, p.address(), p.Database)
	case strings.HasPrefix(refused.Code, "42"): // the statement can put whatever it has read into the message
		return fmt.Errorf("%s (SQLSTATE %s)", cmp.Or(statementWords[refused.Code], "the database refuses the statement"), refused.Code)
	default:
		return fmt.Errorf("%w on %s as %s (SQLSTATE %s)", errNoPostgres, p.address(), user, refused.Code)
	}
	if errors.As(err, &certificate) {
		return fmt.Errorf("%w: the certificate of %s is not trusted: see spec.postgres.ca", errNoPostgres, p.address())
	}
	return fmt.Errorf("%w: no connection to %s as %s", errNoPostgres, p.address(), user)
}
