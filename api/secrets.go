package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Secrets keeps shared secrets; *secrets.Manager is one.
type Secrets interface {
	Create(context.Context, registry.By, secrets.Secret) (secrets.Secret, error)
	Get(ctx context.Context, by registry.By, id string) (secrets.Status, error)
	List(ctx context.Context, by registry.By, f secrets.Filter, after string, limit int) ([]secrets.Status, string, error)
	Update(ctx context.Context, by registry.By, id string, ifVersion uint64, edit func(*secrets.Secret) error) (secrets.Secret, error)
	Delete(ctx context.Context, by registry.By, id string, ifVersion uint64) error
	Rotate(ctx context.Context, by registry.By, id string, ifVersion uint64, force bool) error
	Abort(ctx context.Context, by registry.By, id string, ifVersion uint64) error
	Plan(context.Context, registry.By, secrets.Filter) (secrets.Plan, error)
	RotateAll(ctx context.Context, by registry.By, f secrets.Filter, digest string) (secrets.Plan, error)
	Ack(ctx context.Context, who secrets.Consumer, id string, version uint64) (secrets.Uptake, error)
}

// Rotating is what serving shared secrets needs.
type Rotating struct {
	Secrets  Secrets
	Verifier Verifier // of tokens for <issuer>/leases, by which consumers acknowledge
}

// workloadAcks are the consumers that acknowledge. Their tokens are those for
// leases, whether or not there is anything to lease.
const workloadAcks = "acks"

func (s *server) serveSecrets(cfg Config) error {
	if cfg.Secrets == nil {
		return nil
	}
	if cfg.Secrets.Verifier == nil || cfg.Secrets.Secrets == nil {
		return errors.New("api: shared secrets need a verifier and somebody who keeps them")
	}
	s.secrets = cfg.Secrets.Secrets
	w, err := s.newWorkload(cfg.Secrets.Verifier, cfg.Issuer.Leases(),
		func(r store.Reader, _ *registry.Account, t *verifier.Token) (bool, error) {
			grant, err := s.registry.GrantOf(r, t.Claims())
			if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrChanged) {
				return false, nil
			}
			return err == nil && !t.Tenant().IsSystem() && grant.InForce(s.now()), err
		})
	s.workloads[workloadAcks] = w
	return err
}

func secretRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/secrets", role: registry.RoleViewer, query: []string{"limit", "cursor", "tenant", "account"}, do: listSecrets},
		// Kinds that reach further need more than the role named here: see
		// rotation/secrets. So does force.
		{method: http.MethodPost, path: "/v1/secrets", role: registry.RoleOperator, do: createSecret},
		{method: http.MethodPost, path: "/v1/secrets/rotate", role: registry.RoleOperator, do: rotateSecrets},
		{method: http.MethodGet, path: "/v1/secrets/{id}", role: registry.RoleViewer, do: getSecret},
		{method: http.MethodPatch, path: "/v1/secrets/{id}", role: registry.RoleOperator, do: patchSecret},
		{method: http.MethodDelete, path: "/v1/secrets/{id}", role: registry.RoleSecurity, query: reasonParam, do: deleteSecret},
		{method: http.MethodPost, path: "/v1/secrets/{id}/rotate", role: registry.RoleOperator, do: rotateSecret},
		{method: http.MethodPost, path: "/v1/secrets/{id}/abort", role: registry.RoleOperator, do: abortSecret},
		{method: http.MethodPost, path: "/v1/secrets/{id}/ack", workload: workloadAcks, serve: ackSecret},
	}
}

// errNoSecrets: this broker rotates none.
var errNoSecrets = refuse(wire.CodeConflict, "", "this broker rotates no shared secrets: no Vault is configured")

// rotator is what keeps the secrets, if anything does.
func (s *server) rotator() (Secrets, error) {
	if s.secrets == nil {
		return nil, errNoSecrets
	}
	return s.secrets, nil
}

func listSecrets(c *call) (answer, error) {
	keeper, err := c.rotator()
	if err != nil {
		return answer{}, err
	}
	after, limit, err := c.page("secrets")
	if err != nil {
		return answer{}, err
	}
	f, err := secretFilter(c)
	if err != nil {
		return answer{}, err
	}
	found, next, err := keeper.List(c.r.Context(), c.by, f, after, limit)
	if err != nil {
		return answer{}, err
	}
	return listed("secrets", found, next, wireSecret)
}

func secretFilter(c *call) (f secrets.Filter, err error) {
	if f.Tenant, err = queryValue(c, "tenant", credential.ParseTenant); err != nil {
		return f, err
	}
	f.Account, err = queryValue(c, "account", credential.ParseAccountID)
	return f, err
}

func createSecret(c *call) (answer, error) {
	keeper, err := c.rotator()
	if err != nil {
		return answer{}, err
	}
	var in wire.SecretCreate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	s, err := declaredSecret(in.SecretTerms)
	if err != nil {
		return answer{}, err
	}
	made, err := keeper.Create(c.r.Context(), c.by, s)
	if err != nil {
		return answer{}, err
	}
	st, err := keeper.Get(c.r.Context(), c.by, made.ID)
	if err != nil {
		return answer{}, err
	}
	return created(wireSecret(st), st.Secret.Version, "secrets", made.ID)
}

func getSecret(c *call) (answer, error) {
	id, err := secretID(c)
	if err != nil {
		return answer{}, err
	}
	return c.oneSecret(id)
}

// secretID reads the id from the path, where there is somebody to keep secrets.
func secretID(c *call) (string, error) {
	if _, err := c.rotator(); err != nil {
		return "", err
	}
	id, err := pathID(c, "id", credential.ParseAccountID)
	return id.String(), err
}

// oneSecret answers with a secret as it stands now.
func (c *call) oneSecret(id string) (answer, error) {
	st, err := c.secrets.Get(c.r.Context(), c.by, id)
	if err != nil {
		return answer{}, err
	}
	return ok(wireSecret(st), st.Secret.Version)
}

func patchSecret(c *call) (answer, error) {
	id, err := secretID(c)
	if err != nil {
		return answer{}, err
	}
	p, err := c.patch()
	if err != nil {
		return answer{}, err
	}
	_, err = c.secrets.Update(c.r.Context(), c.by, id, p.ifVersion, func(s *secrets.Secret) error {
		var next secretPatch
		if err := p.apply(secretPatch{SecretTerms: wireTerms(*s)}, &next); err != nil {
			return err
		}
		if next.ID != s.ID || next.Kind != s.Kind || next.Tenant != s.Tenant || next.Shared != s.Shared {
			return refuse(wire.CodeInvalid, "id", "id, kind, tenant and shared can't change")
		}
		changed, err := declaredSecret(next.SecretTerms)
		if err != nil {
			return err
		}
		s.Spec, s.Owner, s.Consumers, s.Description = changed.Spec, changed.Owner, changed.Consumers, changed.Description
		s.Schedule, s.MaxAge, s.DrainDeadline, s.Pair = changed.Schedule, changed.MaxAge, changed.DrainDeadline, changed.Pair
		s.Overlap = changed.Overlap
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	return c.oneSecret(id)
}

// secretPatch is what a patch of a secret may name.
type secretPatch struct {
	wire.SecretTerms
	Reason string `json:"reason,omitempty"`
}

func deleteSecret(c *call) (answer, error) {
	id, err := secretID(c)
	if err != nil {
		return answer{}, err
	}
	ifVersion, err := c.deletion()
	if err != nil {
		return answer{}, err
	}
	if err := c.secrets.Delete(c.r.Context(), c.by, id, ifVersion); err != nil {
		return answer{}, err
	}
	return noContent()
}

func rotateSecret(c *call) (answer, error) {
	id, err := secretID(c)
	if err != nil {
		return answer{}, err
	}
	ifVersion, err := c.ifMatch()
	if err != nil {
		return answer{}, err
	}
	var in wire.SecretRotate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	if err := c.secrets.Rotate(c.r.Context(), c.by, id, ifVersion, in.Force); err != nil {
		return answer{}, err
	}
	return c.oneSecret(id)
}

func abortSecret(c *call) (answer, error) {
	id, err := secretID(c)
	if err != nil {
		return answer{}, err
	}
	ifVersion, err := c.change()
	if err != nil {
		return answer{}, err
	}
	if err := c.secrets.Abort(c.r.Context(), c.by, id, ifVersion); err != nil {
		return answer{}, err
	}
	return c.oneSecret(id)
}

// rotateSecrets shows a plan, or begins what a plan has shown.
func rotateSecrets(c *call) (answer, error) {
	keeper, err := c.rotator()
	if err != nil {
		return answer{}, err
	}
	var in wire.SecretsRotate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	f := secrets.Filter{ID: in.ID, Tenant: in.Tenant, Account: in.Account}
	var plan secrets.Plan
	switch c.by.Reason = in.Reason; {
	case in.Plan && in.Digest != "":
		return answer{}, refuse(wire.CodeInvalid, "digest", "a plan has none yet: leave out plan, or digest")
	case in.Plan:
		plan, err = keeper.Plan(c.r.Context(), c.by, f)
	case in.Digest == "":
		return answer{}, refuse(wire.CodeInvalid, "digest", "ask with plan first, and send the digest of what it showed")
	default:
		plan, err = keeper.RotateAll(c.r.Context(), c.by, f, in.Digest)
	}
	if err != nil {
		return answer{}, err
	}
	return ok(wirePlan(plan, !in.Plan), 0)
}

// ackSecret takes a consumer's word. A secret that is not the consumer's, or not
// of its token's tenant, is not found.
func ackSecret(c *workloadCall) (answer, error) {
	var in wire.SecretAck
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if in.Version == 0 {
		return answer{}, refuse(wire.CodeInvalid, "version", "is required, and at least 1")
	}
	who := secrets.Consumer{
		Account: c.token.ClientID(), Tenant: c.token.Tenant(), JTI: c.token.ID(), RequestID: c.w.id, IP: ipText(c.w.ip),
		Still: func(r store.Reader) error { _, err := c.stands(r); return err },
	}
	u, err := c.secrets.Ack(c.r.Context(), who, c.vars["id"], in.Version)
	if errors.Is(err, errStanding) || errors.Is(err, verifier.ErrRevoked) {
		return answer{}, c.unaccepted(err)
	}
	if err != nil {
		return answer{}, err
	}
	return ok(wire.SecretAcked{ID: c.vars["id"], Version: u.Version, At: u.At}, 0)
}
