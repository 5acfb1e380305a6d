package kinds

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// backendVault is the backend of the kinds that live in Vault.
const backendVault = "vault"

// KV rotates one field of a value in a KV engine. The new value is generated
// and waits beside the old one until it was read back; then it becomes the
// newest version, if nobody else has written one, and the old versions are
// destroyed when every consumer has it.
type KV struct {
	stores Stores
	layout Layout
}

// NewKV returns the kind.
func NewKV(stores Stores, layout Layout) *KV { return &KV{stores, layout} }

// KVSpec is the spec of the kind kv.
type KVSpec struct {
	Namespace string `json:"namespace,omitempty"` // Vault Enterprise
	Mount     string `json:"mount,omitempty"`
	Path      string `json:"path"`
	Field     string `json:"field,omitempty"` // default "value"; the others are carried over
	Length    int    `json:"length,omitempty"`
	Alphabet  string `json:"alphabet,omitempty"`
}

func (s *KVSpec) place() *Place { return &Place{s.Namespace, s.Mount, s.Path} }

// Name implements secrets.Kind.
func (*KV) Name() string { return "kv" }

// Backend implements secrets.Kind.
func (*KV) Backend() string { return backendVault }

// Steps implements secrets.Kind.
func (*KV) Steps() []secrets.Step {
	return []secrets.Step{secrets.Stage, secrets.Prove, secrets.Promote, secrets.Drain, secrets.Retire, secrets.Clean}
}

// Effects implements secrets.Kind.
func (*KV) Effects(step secrets.Step) []string {
	return map[secrets.Step][]string{
		secrets.Stage: {"write"}, secrets.Promote: {"publish"}, secrets.Retire: {"destroy"},
		secrets.Clean: append(slices.Clone(fenceEffects), "unstage"),
	}[step]
}

// Check implements secrets.Kind.
func (k *KV) Check(raw json.RawMessage, about secrets.Subject) (secrets.Checked, error) {
	spec := KVSpec{Field: "value", Length: defaultLength, Alphabet: "alphanumeric"}
	if err := readSpec(raw, &spec); err != nil {
		return secrets.Checked{}, err
	}
	place := spec.place()
	whole, err := place.check(k.layout, about)
	if err != nil {
		return secrets.Checked{}, err
	}
	spec.Mount = place.Mount
	if err := checkName("spec.field", spec.Field, maxField); err != nil {
		return secrets.Checked{}, err
	}
	if spec.Field == versionField || spec.Field == nonceField {
		return secrets.Checked{}, registry.Invalid("spec.field", "is the broker's own")
	}
	if err := checkAlphabet(spec.Length, spec.Alphabet); err != nil {
		return secrets.Checked{}, err
	}
	return secrets.Checked{Spec: canonical(spec), Resources: place.resources(k.layout), Whole: whole}, nil
}

// at returns what a step is about.
func (k *KV) at(w *secrets.Work) (KVSpec, *Place, Store, error) {
	spec, err := stored[KVSpec](w)
	return spec, spec.place(), k.stores(spec.Namespace, spec.Mount), err
}

// Adopts implements secrets.Adopting: what is at the path, if anything is.
func (*KV) Adopts() {}

// Inspect implements secrets.Kind.
func (k *KV) Inspect(ctx context.Context, w *secrets.Work) (secrets.Inspection, error) {
	_, place, store, err := k.at(w)
	if err != nil {
		return secrets.Inspection{}, err
	}
	return place.inspect(ctx, store, w)
}

// Prepare implements secrets.Kind.
func (k *KV) Prepare(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	_, place, store, err := k.at(w)
	if err != nil || w.Step != secrets.Stage {
		return nil, err
	}
	return place.prepareStage(ctx, store)
}

// Do implements secrets.Kind.
func (k *KV) Do(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	spec, place, store, err := k.at(w)
	if err != nil {
		return nil, err
	}
	switch w.Step {
	case secrets.Stage:
		value := generate(spec.Length, spec.Alphabet)
		return place.stage(ctx, store, w, map[string]any{spec.Field: string(value.Reveal())})
	case secrets.Prove:
		return nil, k.prove(ctx, w, spec, place, store)
	case secrets.Promote:
		staged, err := place.readStaged(ctx, store, w)
		if err != nil {
			return nil, err
		}
		return place.publish(ctx, store, w, map[string]any{spec.Field: staged[spec.Field]})
	case secrets.Retire:
		return nil, place.retire(ctx, store, w)
	case secrets.Clean:
		now, _, err := place.fence(ctx, store, w)
		if err != nil {
			return nil, err
		}
		return now, place.unstage(ctx, store, w)
	}
	return nil, fmt.Errorf("kv: no step %s", w.Step)
}

// prove reads the staged value back as consumers would read it.
func (k *KV) prove(ctx context.Context, w *secrets.Work, spec KVSpec, place *Place, store Store) error {
	data, err := place.readStaged(ctx, store, w)
	if err != nil {
		return err
	}
	value, ok := text(data, spec.Field)
	if !ok || !wellFormed(string(value.Reveal()), spec.Length, spec.Alphabet) {
		return fmt.Errorf("%w: the staged value is not as it was generated", secrets.ErrNotDone)
	}
	return nil
}

// Look implements secrets.Kind.
func (k *KV) Look(ctx context.Context, w *secrets.Work) (secrets.Finding, error) {
	_, place, store, err := k.at(w)
	if err != nil {
		return secrets.Finding{}, err
	}
	switch w.Step {
	case secrets.Stage:
		return place.lookStaged(ctx, store, w)
	case secrets.Promote:
		return place.lookPublished(ctx, store, w)
	case secrets.Retire:
		return place.lookRetired(ctx, store, w)
	case secrets.Clean:
		return place.lookCleaned(ctx, store, w)
	}
	return secrets.Finding{}, fmt.Errorf("kv: nothing to look for in %s", w.Step)
}
