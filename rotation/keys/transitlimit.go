package keys

import (
	"context"
	"errors"
	"fmt"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// Limit implements Series. Vault knows a lowest version that signs
// (min_encryption_version) and a lowest that verifies (min_decryption_version),
// so a version in the middle goes on for as long as an older one is needed.
func (t *Transit) Limit(ctx context.Context, series string, mark, foreign int, signing, published map[string]bool) error {
	mount, name, alg, ok := t.locate(series)
	if !ok {
		return nil // of another prefix or mount than is configured now
	}
	info, err := t.read(ctx, mount, name)
	if errors.Is(err, vault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if foreign > 0 && info.MinEncryptionVersion <= foreign {
		return nil // it would end what another broker signs with
	}
	sign := lowest(info, alg, mark, signing)
	verify := min(sign, lowest(info, alg, mark, published))
	if sign <= max(info.MinEncryptionVersion, 1) && verify <= max(info.MinDecryptionVersion, 1) {
		return nil
	}
	sign, verify = max(sign, info.MinEncryptionVersion), max(verify, info.MinDecryptionVersion)
	return t.call(ctx, mount, name, func(ctx context.Context) error {
		if err := t.config.Engine(mount).SetMinimums(ctx, name, verify, sign); err != nil {
			return fmt.Errorf("%s/%s: no version below %d should sign, none below %d verify: %w", mount, name, sign, verify, err)
		}
		return nil
	})
}

func (t *Transit) locate(series string) (mount, name string, alg credential.Algorithm, ok bool) {
	for alg := range transitTypes {
		if t.Series(alg) == series {
			return t.config.Mount, t.keyName(alg), alg, true
		}
	}
	return "", "", "", false
}

// lowest returns the lowest version that is wanted or not published yet, the
// latest if there is none.
func lowest(info vault.TransitKey, alg credential.Algorithm, mark int, wanted map[string]bool) int {
	for n := 1; n < info.LatestVersion; n++ {
		version, there := info.Versions[n]
		if !there {
			continue
		}
		if key, err := identified(alg, version.Public); err == nil && (wanted[key.ID()] || n > mark) {
			return n
		}
	}
	return info.LatestVersion
}
