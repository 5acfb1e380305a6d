package kinds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Accounts keeps the client secrets of accounts; *registry.Registry does.
type Accounts interface {
	RotatedSecrets(ctx context.Context, id credential.AccountID) ([]string, error)
	AddRotatedSecret(ctx context.Context, r registry.Rotated, id credential.AccountID, credentialID, hash string, expiresAt time.Time) error
	DropRotatedSecrets(ctx context.Context, r registry.Rotated, id credential.AccountID, credentialIDs ...string) error
}

// Authenticate tries a client secret as a workload would, and returns an error
// if the broker doesn't take it.
type Authenticate func(ctx context.Context, account credential.AccountID, secret credential.Secret) error

// Secret rotates the broker's own client secret of an account. Both secrets are
// good during the overlap; the new one is published in KV for the workload, and
// has an end date that lies behind the next rotation.
type Secret struct {
	accounts     Accounts
	authenticate Authenticate
	stores       Stores
	layout       Layout
	now          func() time.Time
}

// NewSecret returns the kind.
func NewSecret(accounts Accounts, authenticate Authenticate, stores Stores, layout Layout, now func() time.Time) *Secret {
	return &Secret{accounts, authenticate, stores, layout, now}
}

// SecretSpec is the spec of the kind client-secret.
type SecretSpec struct {
	Account   credential.AccountID `json:"account"`
	Namespace string               `json:"namespace,omitempty"` // Vault Enterprise
	Mount     string               `json:"mount,omitempty"`
	Path      string               `json:"path"`
	Lifetime  secrets.Duration     `json:"lifetime,omitempty"` // of one secret; default, and at most, 90 days
}

const (
	handleCredential = "credential" // ids of client secrets, separated by spaces
	handleExpires    = "expires"
	secretField      = "client_secret"
)

// ClientSecretResource is what a secret that makes an account's client secrets claims.
func ClientSecretResource(account credential.AccountID) string {
	return "client-secret:" + account.String()
}

func (s *SecretSpec) place() *Place { return &Place{s.Namespace, s.Mount, s.Path} }

// Name implements secrets.Kind.
func (*Secret) Name() string { return "client-secret" }

// Backend implements secrets.Kind.
func (*Secret) Backend() string { return backendVault }

// Steps implements secrets.Kind.
func (*Secret) Steps() []secrets.Step {
	return []secrets.Step{
		secrets.Stage, secrets.Apply, secrets.Prove, secrets.Promote, secrets.Drain, secrets.Retire, secrets.Clean,
	}
}

// Effects implements secrets.Kind.
func (*Secret) Effects(step secrets.Step) []string {
	return map[secrets.Step][]string{
		secrets.Stage: {"write"}, secrets.Apply: {"add"}, secrets.Promote: {"publish"},
		secrets.Retire: {"destroy", "remove"}, secrets.Clean: append(slices.Clone(fenceEffects), "withdraw", "unstage"),
	}[step]
}

// Check implements secrets.Kind.
func (k *Secret) Check(raw json.RawMessage, about secrets.Subject) (secrets.Checked, error) {
	spec := SecretSpec{Lifetime: secrets.Duration(credential.MaxClientSecretLifetime)}
	if err := readSpec(raw, &spec); err != nil {
		return secrets.Checked{}, err
	}
	place := spec.place()
	whole, err := place.check(k.layout, about)
	if err != nil {
		return secrets.Checked{}, err
	}
	spec.Mount = place.Mount
	life := time.Duration(spec.Lifetime)
	switch {
	case spec.Account.IsZero():
		return secrets.Checked{}, registry.Invalid("spec.account", "is required: whose client secret it is")
	case life > credential.MaxClientSecretLifetime:
		return secrets.Checked{}, registry.Invalid("spec.lifetime", "at most 90 days")
	case life < about.MaxAge+about.Drain:
		return secrets.Checked{}, registry.Invalid("max_age",
			"at most %s here: with drain_deadline it must not be longer than the lifetime of the client secret, which would end before anyone is alarmed",
			max(0, life-about.Drain))
	}
	return secrets.Checked{
		Spec: canonical(spec), Resources: append(place.resources(k.layout), ClientSecretResource(spec.Account)),
		Whole: whole, Sensitive: true, Accounts: []credential.AccountID{spec.Account},
		Lends: []credential.AccountID{spec.Account}, Published: []credential.AccountID{spec.Account},
	}, nil
}

// DefaultMaxAge implements secrets.Aging: what the lifetime of a client secret
// leaves when its successor takes its time.
func (*Secret) DefaultMaxAge(raw json.RawMessage, drain time.Duration) time.Duration {
	spec := SecretSpec{Lifetime: secrets.Duration(credential.MaxClientSecretLifetime)}
	if err := readSpec(raw, &spec); err != nil || len(raw) > secrets.MaxSpecSize {
		return 0 // Check says what is wrong
	}
	return max(0, min(secrets.DefaultMaxAge, time.Duration(spec.Lifetime)-drain))
}

func (k *Secret) at(w *secrets.Work) (SecretSpec, *Place, Store, error) {
	spec, err := stored[SecretSpec](w)
	return spec, spec.place(), k.stores(spec.Namespace, spec.Mount), err
}

// credentialID is the id of the client secret that a rotation makes.
func credentialID(w *secrets.Work) string { return "s_" + w.Nonce }

// former are the ids of those that it replaces.
func former(w *secrets.Work) []string { return strings.Fields(w.Old.Handle[handleCredential]) }

// Adopts implements secrets.Adopting: the account's client secrets, if it has any.
func (*Secret) Adopts() {}

// Inspect implements secrets.Kind.
func (k *Secret) Inspect(ctx context.Context, w *secrets.Work) (secrets.Inspection, error) {
	spec, place, store, err := k.at(w)
	if err != nil {
		return secrets.Inspection{}, err
	}
	in, err := place.inspect(ctx, store, w)
	if err != nil {
		return secrets.Inspection{}, err
	}
	have, err := k.accounts.RotatedSecrets(ctx, spec.Account)
	if err != nil {
		return secrets.Inspection{}, err
	}
	if len(have) > 0 && in.Found == nil {
		in.Found = secrets.Handle{}
	}
	if in.Found != nil {
		in.Found[handleCredential] = strings.Join(have, " ")
	}
	for _, id := range former(w) {
		if k.ended(w.Old) { // by itself, since no rotation could come before: the next one mends it
			break
		}
		if in.Drift == "" && !slices.Contains(have, id) {
			in.Drift = fmt.Sprintf("the client secret %s of %s was removed", id, spec.Account)
		}
	}
	return in, nil
}

// ended reports whether a client secret has reached its end date.
func (k *Secret) ended(s secrets.Slot) bool {
	at, err := time.Parse(time.RFC3339, s.Handle[handleExpires])
	return err == nil && !k.now().Before(at)
}

// Prepare implements secrets.Kind.
func (k *Secret) Prepare(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	spec, place, store, err := k.at(w)
	if err != nil {
		return nil, err
	}
	switch w.Step {
	case secrets.Stage:
		// A second value of one rotation would be added, and the first one read.
		if err := place.notGiven(ctx, store, w); err != nil {
			return nil, err
		}
		return place.prepareStage(ctx, store)
	case secrets.Apply:
		// Kept before it is added, so that it ends with this rotation whatever happens.
		return secrets.Handle{
			handleCredential: credentialID(w), handleExpires: k.now().Add(time.Duration(spec.Lifetime)).UTC().Format(time.RFC3339),
		}, nil
	}
	return nil, nil
}

// Do implements secrets.Kind.
func (k *Secret) Do(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	spec, place, store, err := k.at(w)
	if err != nil {
		return nil, err
	}
	switch w.Step {
	case secrets.Stage:
		value := credential.GenerateSecret()
		return place.stage(ctx, store, w, map[string]any{secretField: string(value.Reveal())})
	case secrets.Apply:
		return nil, k.add(ctx, w, spec, place, store)
	case secrets.Prove:
		return nil, k.prove(ctx, w, spec, place, store)
	case secrets.Promote:
		value, err := k.staged(ctx, w, place, store)
		if err != nil {
			return nil, err
		}
		return place.publish(ctx, store, w, map[string]any{
			"client_id": spec.Account.String(), secretField: string(value.Reveal()), "expires_at": w.New.Handle[handleExpires],
		})
	case secrets.Retire:
		good, err := k.stillGood(ctx, w, spec)
		if err != nil {
			return nil, err
		}
		if !good { // nothing ends: the next rotation retires the former ones too
			return secrets.Handle{handleCredential: strings.Join(append([]string{credentialID(w)}, former(w)...), " ")}, nil
		}
		if err := place.retire(ctx, store, w); err != nil {
			return nil, err
		}
		return nil, k.drop(ctx, w, "remove", spec, former(w))
	case secrets.Clean:
		now, landed, err := place.fence(ctx, store, w)
		if err != nil {
			return nil, err
		}
		if landed && !w.Forced {
			return nil, drift("%s is of the rotation that was given up, and consumers read it", place.Path)
		}
		if w.GivenUp && !landed { // what they read stays with force too: the next rotation ends it
			if err := k.drop(ctx, w, "withdraw", spec, []string{credentialID(w)}); err != nil {
				return nil, err
			}
		}
		return now, place.unstage(ctx, store, w)
	}
	return nil, fmt.Errorf("client-secret: no step %s", w.Step)
}

// stillGood refuses to end the former client secret where the new one was removed
// since it was proven, or has ended: the account would be left with none. Force
// goes on without ending it.
func (k *Secret) stillGood(ctx context.Context, w *secrets.Work, spec SecretSpec) (bool, error) {
	found, err := k.lookFor(ctx, spec, credentialID(w))
	if err == nil && found.What != secrets.FoundDone && !w.Forced {
		err = drift("the client secret %s of %s, which consumers have, was removed or has ended; the former one stays, also with force",
			credentialID(w), spec.Account)
	}
	return found.What == secrets.FoundDone, err
}

func (k *Secret) staged(ctx context.Context, w *secrets.Work, place *Place, store Store) (credential.Secret, error) {
	data, err := place.readStaged(ctx, store, w)
	if err != nil {
		return credential.Secret{}, err
	}
	value, ok := text(data, secretField)
	if !ok {
		return credential.Secret{}, fmt.Errorf("%w: the staged client secret is not as it was made", secrets.ErrNotDone)
	}
	return value, nil
}

func (k *Secret) add(ctx context.Context, w *secrets.Work, spec SecretSpec, place *Place, store Store) error {
	value, err := k.staged(ctx, w, place, store)
	if err != nil {
		return err
	}
	expires, err := time.Parse(time.RFC3339, w.New.Handle[handleExpires])
	if err != nil {
		return err
	}
	return w.Effect("add", func() error {
		return k.accounts.AddRotatedSecret(ctx, w.Secret.Rotated(), spec.Account, credentialID(w), registry.HashSecret(value), expires)
	})
}

// prove has the broker authenticate the account with the new secret.
func (k *Secret) prove(ctx context.Context, w *secrets.Work, spec SecretSpec, place *Place, store Store) error {
	value, err := k.staged(ctx, w, place, store)
	if err != nil {
		return err
	}
	if err := k.authenticate(ctx, spec.Account, value); err != nil {
		return fmt.Errorf("%w: the broker doesn't take the new client secret: %w", secrets.ErrNotDone, err)
	}
	return nil
}

func (k *Secret) drop(ctx context.Context, w *secrets.Work, effect string, spec SecretSpec, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	err := w.Effect(effect, func() error {
		return k.accounts.DropRotatedSecrets(ctx, w.Secret.Rotated(), spec.Account, ids...)
	})
	if errors.Is(err, registry.ErrNotFound) { // the account is gone, and its secrets with it
		return nil
	}
	return err
}

// Look implements secrets.Kind.
func (k *Secret) Look(ctx context.Context, w *secrets.Work) (secrets.Finding, error) {
	spec, place, store, err := k.at(w)
	if err != nil {
		return secrets.Finding{}, err
	}
	switch w.Step {
	case secrets.Stage:
		return place.lookStaged(ctx, store, w)
	case secrets.Apply:
		return k.lookFor(ctx, spec, credentialID(w))
	case secrets.Promote:
		return place.lookPublished(ctx, store, w)
	case secrets.Retire:
		found, err := place.lookRetired(ctx, store, w)
		if err != nil || found.What != secrets.FoundDone {
			return found, err
		}
		return k.lookGone(ctx, spec, former(w))
	case secrets.Clean:
		if w.GivenUp {
			if gone, err := k.lookGone(ctx, spec, []string{credentialID(w)}); err != nil || gone.What != secrets.FoundDone {
				return gone, err
			}
		}
		return place.lookCleaned(ctx, store, w)
	}
	return secrets.Finding{}, fmt.Errorf("client-secret: nothing to look for in %s", w.Step)
}

func (k *Secret) lookFor(ctx context.Context, spec SecretSpec, id string) (secrets.Finding, error) {
	have, err := k.accounts.RotatedSecrets(ctx, spec.Account)
	if err != nil {
		return secrets.Finding{}, err
	}
	if slices.Contains(have, id) {
		return secrets.Finding{What: secrets.FoundDone}, nil
	}
	return secrets.Finding{What: secrets.FoundNot}, nil
}

func (k *Secret) lookGone(ctx context.Context, spec SecretSpec, ids []string) (secrets.Finding, error) {
	have, err := k.accounts.RotatedSecrets(ctx, spec.Account)
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return secrets.Finding{}, err
	}
	for _, id := range ids {
		if slices.Contains(have, id) {
			return secrets.Finding{What: secrets.FoundNot}, nil
		}
	}
	return secrets.Finding{What: secrets.FoundDone}, nil
}
