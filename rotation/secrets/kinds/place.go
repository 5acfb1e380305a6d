package kinds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Fields that the broker writes beside a value: the version, for consumers to
// acknowledge, and the nonce by which it recognises what it wrote.
const (
	versionField = "tenantbroker_version"
	nonceField   = "tenantbroker_nonce"
)

// What a handle says of values in KV.
const (
	handleVersion = "kv_version" // Vault's number of what consumers read
	handleStaged  = "staged"     // Vault's number of what is staged
	handleUnder   = "staged_over"
)

// stagedSuffix is what the path has on which a value waits until it is proven.
const stagedSuffix = ".next"

// Store is a KV engine, version 2, at one mount; *vault.KV is one.
type Store interface {
	Get(ctx context.Context, path string) (vault.KVValue, error)
	GetVersion(ctx context.Context, path string, n int) (vault.KVValue, error)
	Put(ctx context.Context, path string, data map[string]any, cas int) (int, error)
	Metadata(ctx context.Context, path string) (vault.KVMetadata, error)
	Destroy(ctx context.Context, path string, versions ...int) error
	DeleteAll(ctx context.Context, path string) error
}

// Stores finds the KV engine at a mount of a namespace.
type Stores func(namespace, mount string) Store

// Place is where consumers read a value, as specs have it.
type Place struct {
	Namespace string `json:"namespace,omitempty"`
	Mount     string `json:"mount,omitempty"`
	Path      string `json:"path"`
}

// check fills in defaults. whole says that the place is not within the folder of
// the secret's tenant, so that only operators of the whole broker may name it.
// The folder of another tenant is nobody's to name.
func (p *Place) check(l Layout, about secrets.Subject) (whole bool, err error) {
	if p.Mount == "" {
		p.Mount = l.Mount
	}
	if err := checkNamespace(p.Namespace); err != nil {
		return false, err
	}
	if err := l.checkMount(p.Namespace, p.Mount); err != nil {
		return false, err
	}
	if err := checkPath("spec.path", p.Path, maxPath); err != nil {
		return false, err
	}
	own := l.Shared + "/"
	if !about.Tenant.IsZero() {
		own = l.Tenants + "/" + about.Tenant.String() + "/"
	}
	at := l.full(p.Namespace, p.Mount, p.Path)
	if strings.HasPrefix(at, l.full("", l.Mount, l.Tenants+"/")) && !strings.HasPrefix(at, l.full("", l.Mount, own)) {
		return false, registry.Invalid("spec.path", "lies within the folder of another tenant")
	}
	if strings.HasSuffix(p.Path, stagedSuffix) {
		return false, registry.Invalid("spec.path", "ends in %s, where values wait until they are proven", stagedSuffix)
	}
	here := p.Mount == l.Mount && p.Namespace == ""
	return !here || !strings.HasPrefix(p.Path, own), nil
}

func (p *Place) resources(l Layout) []string {
	return []string{l.KVResource(p.Namespace, p.Mount, p.Path), l.KVResource(p.Namespace, p.Mount, p.Path+stagedSuffix)}
}

func (p *Place) staged() string { return p.Path + stagedSuffix }

// number reads a number from a handle; 0 if there is none.
func number(h secrets.Handle, name string) int {
	n, err := strconv.Atoi(h[name])
	if err != nil {
		return 0
	}
	return n
}

// latest reads the newest version at a path; version 0: there never was one.
// gone says that its data is deleted or destroyed.
func latest(ctx context.Context, kv Store, path string) (v vault.KVValue, gone bool, err error) {
	v, err = kv.Get(ctx, path)
	if errors.Is(err, vault.ErrNotFound) {
		return v, true, nil
	}
	return v, false, fromVault(err)
}

func written(v vault.KVValue, nonce string) bool {
	text, ok := v.Data[nonceField].(string)
	return ok && text == nonce
}

// notGiven refuses a rotation whose value consumers are given already: its record
// is of a store that was restored.
func (p *Place) notGiven(ctx context.Context, kv Store, w *secrets.Work) error {
	now, gone, err := latest(ctx, kv, p.Path)
	if err == nil && !gone && written(now, w.Nonce) {
		err = drift("version %d of %s is of this rotation already: the broker's store is older", now.Version, p.Path)
	}
	return err
}

// stage writes fields to the staging path, over whatever prepareStage saw there.
func (p *Place) stage(ctx context.Context, kv Store, w *secrets.Work, fields map[string]any) (secrets.Handle, error) {
	data := p.marked(w, fields)
	var version int
	err := w.Effect("write", func() (err error) {
		version, err = kv.Put(ctx, p.staged(), data, number(w.New.Handle, handleUnder))
		return err
	})
	if err != nil {
		return nil, fromVault(err)
	}
	return secrets.Handle{handleStaged: strconv.Itoa(version)}, nil
}

func (p *Place) marked(w *secrets.Work, fields map[string]any) map[string]any {
	data := maps.Clone(fields)
	data[versionField], data[nonceField] = strconv.FormatUint(w.New.Version, 10), w.Nonce
	return data
}

// prepareStage notes what is on the staging path: leavings of a rotation that
// was cut off for good, such as by a restored backup.
func (p *Place) prepareStage(ctx context.Context, kv Store) (secrets.Handle, error) {
	v, _, err := latest(ctx, kv, p.staged())
	if err != nil {
		return nil, err
	}
	return secrets.Handle{handleUnder: strconv.Itoa(v.Version)}, nil
}

func (p *Place) lookStaged(ctx context.Context, kv Store, w *secrets.Work) (secrets.Finding, error) {
	v, gone, err := latest(ctx, kv, p.staged())
	if err != nil {
		return secrets.Finding{}, err
	}
	if gone || !written(v, w.Nonce) {
		return secrets.Finding{What: secrets.FoundNot}, nil
	}
	return secrets.Finding{What: secrets.FoundDone, Handle: secrets.Handle{handleStaged: strconv.Itoa(v.Version)}}, nil
}

// readStaged returns the data that was staged.
func (p *Place) readStaged(ctx context.Context, kv Store, w *secrets.Work) (map[string]any, error) {
	v, err := kv.GetVersion(ctx, p.staged(), max(1, number(w.New.Handle, handleStaged)))
	if errors.Is(err, vault.ErrNotFound) || (err == nil && !written(v, w.Nonce)) {
		return nil, drift("what was staged at %s is gone", p.staged())
	}
	return v.Data, fromVault(err)
}

// publish writes fields where consumers read, if what is there is still what the
// rotation began with. Fields that the broker doesn't write are carried over.
func (p *Place) publish(ctx context.Context, kv Store, w *secrets.Work, fields map[string]any) (secrets.Handle, error) {
	now, gone, err := latest(ctx, kv, p.Path)
	if err != nil {
		return nil, err
	}
	if !gone && written(now, w.Nonce) { // an earlier try that landed after it was looked for
		return secrets.Handle{handleVersion: strconv.Itoa(now.Version)}, nil
	}
	from := number(w.Old.Handle, handleVersion)
	if now.Version != from {
		return nil, drift("version %d of %s is not the broker's, which is %d", now.Version, p.Path, from)
	}
	data := p.marked(w, fields)
	if !gone {
		for name, value := range now.Data {
			if _, ours := data[name]; !ours {
				data[name] = value
			}
		}
	}
	var version int
	err = w.Effect("publish", func() (err error) {
		version, err = kv.Put(ctx, p.Path, data, from)
		return err
	})
	if errors.Is(err, vault.ErrConflict) { // by another, or by an earlier try: Look tells
		return nil, fmt.Errorf("%s was written at the same time", p.Path)
	}
	if err != nil {
		return nil, fromVault(err)
	}
	return secrets.Handle{handleVersion: strconv.Itoa(version)}, nil
}

// maxLookBack bounds how many versions are looked at for the broker's own.
const maxLookBack = 20

// lookPublished finds out whether publish wrote.
func (p *Place) lookPublished(ctx context.Context, kv Store, w *secrets.Work) (secrets.Finding, error) {
	now, gone, err := latest(ctx, kv, p.Path)
	if err != nil {
		return secrets.Finding{}, err
	}
	from := number(w.Old.Handle, handleVersion)
	switch {
	case !gone && written(now, w.Nonce):
		return secrets.Finding{What: secrets.FoundDone, Handle: secrets.Handle{handleVersion: strconv.Itoa(now.Version)}}, nil
	case now.Version == from:
		return secrets.Finding{What: secrets.FoundNot}, nil
	}
	note := fmt.Sprintf("version %d of %s is not the broker's, which is %d", now.Version, p.Path, from)
	for n := now.Version - 1; n > from && n > now.Version-maxLookBack; n-- {
		v, err := kv.GetVersion(ctx, p.Path, n)
		if err != nil && !errors.Is(err, vault.ErrNotFound) {
			return secrets.Finding{}, fromVault(err)
		}
		if err == nil && written(v, w.Nonce) {
			note = fmt.Sprintf("version %d of %s was written over the broker's, which is %d", now.Version, p.Path, n)
		}
	}
	return secrets.Finding{What: secrets.Elsewhere, Note: note}, nil
}

// maxStamp bounds the versions that are taken for a broker's: what is above it
// nobody has reached by rotating.
const maxStamp = 1 << 40

// stamp is the version that a broker has written beside a value; 0: none.
func stamp(v vault.KVValue) uint64 {
	text, _ := v.Data[versionField].(string)
	if n := ParseVersion(text); n <= maxStamp {
		return n
	}
	return 0
}

// newestStamp is that of now, or of the newest before it that has one: somebody
// may have written over it by hand.
func (p *Place) newestStamp(ctx context.Context, kv Store, now vault.KVValue) (uint64, error) {
	found := stamp(now)
	for n := now.Version - 1; found == 0 && n > 0 && n > now.Version-maxLookBack; n-- {
		v, err := kv.GetVersion(ctx, p.Path, n)
		if err != nil && !errors.Is(err, vault.ErrNotFound) {
			return 0, fromVault(err)
		}
		if err == nil {
			found = stamp(v)
		}
	}
	return found, nil
}

// inspect compares what consumers read with what the broker left there. For a
// rotation that begins it finds out how far the versions had come.
func (p *Place) inspect(ctx context.Context, kv Store, w *secrets.Work) (in secrets.Inspection, err error) {
	now, gone, err := latest(ctx, kv, p.Path)
	if err != nil {
		return secrets.Inspection{}, err
	}
	if w.Begins {
		defer func() {
			if err == nil {
				in.Stamp, err = p.newestStamp(ctx, kv, now)
			}
		}()
	}
	if now.Version == 0 && w.Old.Version == 0 {
		return secrets.Inspection{}, nil
	}
	in = secrets.Inspection{Found: secrets.Handle{handleVersion: strconv.Itoa(now.Version)}}
	if w.Old.Version == 0 {
		return in, nil
	}
	ours := number(w.Old.Handle, handleVersion)
	switch {
	case now.Version == 0:
		in.Drift = fmt.Sprintf("nothing is at %s any more", p.Path)
	case now.Version != ours:
		in.Drift = fmt.Sprintf("version %d of %s is not the broker's, which is %d", now.Version, p.Path, ours)
	case gone:
		in.Drift = fmt.Sprintf("version %d of %s was deleted", ours, p.Path)
	case w.Old.Nonce != "" && !written(now, w.Old.Nonce):
		in.Drift = fmt.Sprintf("version %d of %s is another than the broker wrote", ours, p.Path)
	}
	return in, nil
}

// retire destroys every version before the new one.
func (p *Place) retire(ctx context.Context, kv Store, w *secrets.Work) error {
	now, gone, err := latest(ctx, kv, p.Path)
	if err != nil {
		return err
	}
	ours := number(w.New.Handle, handleVersion)
	if !w.Forced && (gone || now.Version != ours || !written(now, w.Nonce)) {
		return drift("version %d of %s is not the broker's, which is %d", now.Version, p.Path, ours)
	}
	old, err := p.remaining(ctx, kv, ours)
	if err != nil || len(old) == 0 {
		return err
	}
	return fromVault(w.Effect("destroy", func() error { return kv.Destroy(ctx, p.Path, old...) }))
}

func (p *Place) lookRetired(ctx context.Context, kv Store, w *secrets.Work) (secrets.Finding, error) {
	old, err := p.remaining(ctx, kv, number(w.New.Handle, handleVersion))
	if err != nil {
		return secrets.Finding{}, err
	}
	if len(old) > 0 {
		return secrets.Finding{What: secrets.FoundNot}, nil
	}
	return secrets.Finding{What: secrets.FoundDone}, nil
}

// remaining lists the versions before one that still have their data.
func (p *Place) remaining(ctx context.Context, kv Store, before int) ([]int, error) {
	m, err := kv.Metadata(ctx, p.Path)
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return nil, fromVault(err)
	}
	var old []int
	for n, v := range m.Versions {
		if n < before && !v.Destroyed {
			old = append(old, n)
		}
	}
	return old, nil
}

// unstage removes what was staged.
func (p *Place) unstage(ctx context.Context, kv Store, w *secrets.Work) error {
	return fromVault(w.Effect("unstage", func() error { return kv.DeleteAll(ctx, p.staged()) }))
}

// lookCleaned finds out whether fence and unstage have been.
func (p *Place) lookCleaned(ctx context.Context, kv Store, w *secrets.Work) (secrets.Finding, error) {
	fenced, err := p.lookFenced(ctx, kv, w)
	if err != nil || fenced.What != secrets.FoundDone {
		return fenced, err
	}
	_, err = kv.Metadata(ctx, p.staged())
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return fenced, nil
	case err != nil:
		return secrets.Finding{}, fromVault(err)
	}
	return secrets.Finding{What: secrets.FoundNot}, nil
}

// text reads a field of data as a secret.
func text(data map[string]any, field string) (credential.Secret, bool) {
	s, ok := data[field].(string)
	return credential.NewSecret([]byte(s)), ok && s != ""
}
