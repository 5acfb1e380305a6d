package kinds

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// fenceEffects are those of fence, in order.
var fenceEffects = []string{"fence", "erase"}

// fence makes sure that no write of a rotation that was given up reaches
// consumers any more: Vault may carry one out long after nobody waits for its
// answer. The former value is written once more, so that a late write is one over
// a version that is not the newest, which check-and-set refuses. Where nothing
// was, an empty version is written and erased. What it returns says where the
// former value is now.
//
// landed: consumers read the new value after all, and nothing was done.
func (p *Place) fence(ctx context.Context, kv Store, w *secrets.Work) (now secrets.Handle, landed bool, err error) {
	if !w.GivenUp {
		return nil, false, nil
	}
	at, err := p.lookAtFence(ctx, kv, w)
	if err != nil || at.landed || !mayLand(w) {
		return nil, at.landed, err
	}
	if at.open {
		at.newest = 0
		err := w.Effect("fence", func() (err error) {
			at.newest, err = kv.Put(ctx, p.Path, at.former, number(w.Old.Handle, handleVersion))
			return err
		})
		if errors.Is(err, vault.ErrConflict) { // by another, or by what is to be fenced off: Look tells
			return nil, false, fmt.Errorf("%s was written at the same time", p.Path)
		}
		if err != nil {
			return nil, false, fromVault(err)
		}
		at.ours = true
	}
	if at.erase {
		if err := w.Effect("erase", func() error { return kv.Destroy(ctx, p.Path, at.newest) }); err != nil {
			return nil, false, fromVault(err)
		}
	}
	return at.handle(), false, nil
}

// mayLand reports whether a write of promote may be under way still: the
// rotation was given up when its new value was proven.
func mayLand(w *secrets.Work) bool { return w.GivenUp && !w.New.ProvenAt.IsZero() }

// fencing is what is there of a fence.
type fencing struct {
	newest int
	former map[string]any // what is to be written, while open
	open   bool           // a late write would still take effect
	landed bool           // it has
	ours   bool           // the newest version is the fence
	erase  bool           // and stands for nothing
}

func (f fencing) handle() secrets.Handle {
	if !f.ours {
		return nil // another's: the next look for drift says so
	}
	return secrets.Handle{handleVersion: strconv.Itoa(f.newest)}
}

func (p *Place) lookAtFence(ctx context.Context, kv Store, w *secrets.Work) (fencing, error) {
	now, gone, err := latest(ctx, kv, p.Path)
	if err != nil {
		return fencing{}, err
	}
	from := number(w.Old.Handle, handleVersion)
	f := fencing{newest: now.Version, landed: !gone && written(now, w.Nonce)}
	switch {
	case f.landed:
	case now.Version == from:
		f.open, f.erase, f.former = true, gone, map[string]any{}
		if !gone {
			f.former = now.Data
		}
	case now.Version == from+1:
		f.ours, f.erase, err = p.isFence(ctx, kv, w, now, gone)
	}
	return f, err
}

// isFence reports whether the version after the former one holds what that one
// does. Where that one holds nothing, it does not either, or is still to be erased.
func (p *Place) isFence(ctx context.Context, kv Store, w *secrets.Work, now vault.KVValue, gone bool) (ours, erase bool, err error) {
	if from := number(w.Old.Handle, handleVersion); from > 0 {
		then, err := kv.GetVersion(ctx, p.Path, from)
		switch {
		case err == nil:
			return !gone && reflect.DeepEqual(then.Data, now.Data), false, nil
		case !errors.Is(err, vault.ErrNotFound):
			return false, false, fromVault(err)
		case !gone && w.Old.Nonce != "" && written(now, w.Old.Nonce): // the mount keeps one version
			return true, false, nil
		}
	}
	empty := !gone && len(now.Data) == 0
	return gone || empty, empty, nil
}

// lookFenced finds out whether the fence stands, or is not needed any more.
func (p *Place) lookFenced(ctx context.Context, kv Store, w *secrets.Work) (secrets.Finding, error) {
	if !mayLand(w) {
		return secrets.Finding{What: secrets.FoundDone}, nil
	}
	at, err := p.lookAtFence(ctx, kv, w)
	switch {
	case err != nil:
		return secrets.Finding{}, err
	case at.open || at.erase:
		return secrets.Finding{What: secrets.FoundNot}, nil
	}
	return secrets.Finding{What: secrets.FoundDone, Handle: at.handle()}, nil
}
