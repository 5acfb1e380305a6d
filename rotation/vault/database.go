package vault

import (
	"context"
	"net/http"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Database is a Database engine at one mount.
type Database struct {
	client *Client
	mount  string
}

// Database returns the engine at a mount, e.g. "database".
func (c *Client) Database(mount string) *Database { return &Database{c, mount} }

// StaticRole is a role with one user whose password Vault changes.
type StaticRole struct {
	Database           string // name of the connection
	Username           string
	RotationPeriod     time.Duration // 0: by schedule
	RotationSchedule   string
	RotationWindow     time.Duration // with a schedule
	RotationStatements []string
	LastRotation       time.Time // told only
}

// StaticCredentials are those of a static role.
type StaticCredentials struct {
	Username       string
	Password       credential.Secret
	LastRotation   time.Time
	RotationPeriod time.Duration
	TTL            time.Duration // until Vault's own next rotation; 0 means due, or that it fails
}

// Role makes a user for each lease.
type Role struct {
	Database             string // name of the connection
	CreationStatements   []string
	RevocationStatements []string
	RenewStatements      []string
	DefaultTTL, MaxTTL   time.Duration
}

// Credentials are a user's with a lease.
type Credentials struct {
	Username      string
	Password      credential.Secret
	LeaseID       string
	LeaseDuration time.Duration
	Renewable     bool
}

// StaticRole reads a static role.
func (d *Database) StaticRole(ctx context.Context, name string) (StaticRole, error) {
	var data struct {
		Database   string   `json:"db_name"`
		Username   string   `json:"username"`
		Period     seconds  `json:"rotation_period"`
		Schedule   string   `json:"rotation_schedule"`
		Window     seconds  `json:"rotation_window"`
		Statements []string `json:"rotation_statements"`
		Last       string   `json:"last_vault_rotation"`
	}
	if err := d.read(ctx, "/static-roles/"+name, &data); err != nil {
		return StaticRole{}, err
	}
	return StaticRole{
		Database: data.Database, Username: data.Username, RotationPeriod: data.Period.duration(), RotationSchedule: data.Schedule,
		RotationWindow: data.Window.duration(), RotationStatements: data.Statements, LastRotation: parseTime(data.Last),
	}, nil
}

// PutStaticRole makes or changes a static role. Making one changes the user's
// password at once. The period is kept by Vault's own timer.
func (d *Database) PutStaticRole(ctx context.Context, name string, r StaticRole) error {
	body := map[string]any{"db_name": r.Database, "username": r.Username}
	if r.RotationPeriod > 0 {
		body["rotation_period"] = whole(r.RotationPeriod)
	}
	if r.RotationSchedule != "" {
		body["rotation_schedule"] = r.RotationSchedule
		if r.RotationWindow > 0 {
			body["rotation_window"] = whole(r.RotationWindow)
		}
	}
	if len(r.RotationStatements) > 0 {
		body["rotation_statements"] = r.RotationStatements
	}
	return d.write(ctx, http.MethodPut, "/static-roles/"+name, body)
}

// DeleteStaticRole forgets a static role; the user stays as it is.
func (d *Database) DeleteStaticRole(ctx context.Context, name string) error {
	return d.write(ctx, http.MethodDelete, "/static-roles/"+name, nil)
}

// StaticCredentials reads user and password of a static role.
func (d *Database) StaticCredentials(ctx context.Context, name string) (StaticCredentials, error) {
	var data struct {
		Username string  `json:"username"`
		Password string  `json:"password"`
		Last     string  `json:"last_vault_rotation"`
		Period   seconds `json:"rotation_period"`
		TTL      seconds `json:"ttl"`
	}
	if err := d.read(ctx, "/static-creds/"+name, &data); err != nil {
		return StaticCredentials{}, err
	}
	return StaticCredentials{
		Username: data.Username, Password: credential.NewSecret([]byte(data.Password)), LastRotation: parseTime(data.Last),
		RotationPeriod: data.Period.duration(), TTL: data.TTL.duration(),
	}, nil
}

// RotateStaticRole changes the password now.
func (d *Database) RotateStaticRole(ctx context.Context, name string) error {
	return d.write(ctx, http.MethodPut, "/rotate-role/"+name, nil)
}

// Role reads a role.
func (d *Database) Role(ctx context.Context, name string) (Role, error) {
	var data struct {
		Database string   `json:"db_name"`
		Create   []string `json:"creation_statements"`
		Revoke   []string `json:"revocation_statements"`
		Renew    []string `json:"renew_statements"`
		TTL      seconds  `json:"default_ttl"`
		Max      seconds  `json:"max_ttl"`
	}
	if err := d.read(ctx, "/roles/"+name, &data); err != nil {
		return Role{}, err
	}
	return Role{
		Database: data.Database, CreationStatements: data.Create, RevocationStatements: data.Revoke, RenewStatements: data.Renew,
		DefaultTTL: data.TTL.duration(), MaxTTL: data.Max.duration(),
	}, nil
}

// PutRole makes or changes a role.
func (d *Database) PutRole(ctx context.Context, name string, r Role) error {
	body := map[string]any{
		"db_name": r.Database, "creation_statements": r.CreationStatements,
		"default_ttl": whole(r.DefaultTTL), "max_ttl": whole(r.MaxTTL),
	}
	if len(r.RevocationStatements) > 0 {
		body["revocation_statements"] = r.RevocationStatements
	}
	if len(r.RenewStatements) > 0 {
		body["renew_statements"] = r.RenewStatements
	}
	return d.write(ctx, http.MethodPut, "/roles/"+name, body)
}

// DeleteRole forgets a role; its leases go on.
func (d *Database) DeleteRole(ctx context.Context, name string) error {
	return d.write(ctx, http.MethodDelete, "/roles/"+name, nil)
}

// Roles lists the names of the roles.
func (d *Database) Roles(ctx context.Context) ([]string, error) {
	return d.client.list(ctx, opDatabaseRead, d.mount+"/roles")
}

// Credentials makes a user, with a lease. It is sent once: after ErrUncertain
// there may be a user and a lease that nobody knows; Leases.List finds it.
func (d *Database) Credentials(ctx context.Context, role string) (Credentials, error) {
	one := &call{op: opDatabaseCredentials, method: http.MethodGet, path: d.mount + "/creds/" + role, effect: true}
	out, err := d.client.do(ctx, one)
	if err != nil {
		return Credentials{}, err
	}
	var data struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if err := out.into(one, &data); err != nil {
		return Credentials{}, err
	}
	if data.Username == "" || data.Password == "" || out.LeaseID == "" {
		return Credentials{}, unexpected(one, "no user, password or lease")
	}
	return Credentials{
		Username: data.Username, Password: credential.NewSecret([]byte(data.Password)), LeaseID: out.LeaseID,
		LeaseDuration: time.Duration(out.LeaseDuration) * time.Second, Renewable: out.Renewable,
	}, nil
}

func (d *Database) read(ctx context.Context, path string, v any) error {
	one := &call{op: opDatabaseRead, method: http.MethodGet, path: d.mount + path}
	out, err := d.client.do(ctx, one)
	if err != nil {
		return err
	}
	return out.into(one, v)
}

func (d *Database) write(ctx context.Context, method, path string, body map[string]any) error {
	_, err := d.client.do(ctx, &call{op: opDatabaseWrite, method: method, path: d.mount + path, body: body, effect: true})
	return err
}
