package vault

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
)

// MaxBatch is how many inputs one Sign takes.
const MaxBatch = 1024

// Transit is a Transit engine at one mount.
type Transit struct {
	client *Client
	mount  string
}

// Transit returns the engine at a mount, e.g. "transit".
func (c *Client) Transit(mount string) *Transit { return &Transit{c, mount} }

// Signature is one answer of a batch.
type Signature struct {
	Raw []byte // as RFC 7518 and RFC 8037 have it in a JWS
	Err error  // why this one input was not signed
}

// signing says how Vault signs for an algorithm of JOSE.
var signing = map[credential.Algorithm]map[string]any{
	credential.ES256: {"prehashed": true, "hash_algorithm": "sha2-256", "marshaling_algorithm": "jws"},
	credential.RS256: {"prehashed": true, "hash_algorithm": "sha2-256", "marshaling_algorithm": "jws", "signature_algorithm": "pkcs1v15"},
	credential.EdDSA: {"marshaling_algorithm": "jws"},
}

// Sign signs all inputs with one version of a key, in one call. The answer has
// one Signature for each input, in order. A version of 0 is refused: whoever
// publishes a key must know which one signed.
func (t *Transit) Sign(ctx context.Context, name string, version int, alg credential.Algorithm, inputs [][]byte) ([]Signature, error) {
	settings, known := signing[alg]
	switch {
	case !known:
		return nil, fmt.Errorf("%w: Transit doesn't sign %s", ErrConfig, alg)
	case version < 1:
		return nil, fmt.Errorf("%w: a key version must be pinned", ErrConfig)
	case len(inputs) == 0 || len(inputs) > MaxBatch:
		return nil, fmt.Errorf("%w: 1 to %d inputs", ErrConfig, MaxBatch)
	}
	batch := make([]map[string]any, len(inputs))
	for i, input := range inputs {
		if settings["prehashed"] == true {
			digest := sha256.Sum256(input)
			input = digest[:]
		}
		batch[i] = map[string]any{"input": base64.StdEncoding.EncodeToString(input)}
	}
	body := map[string]any{"key_version": version, "batch_input": batch}
	for k, v := range settings {
		body[k] = v
	}
	// A signature that is lost harms nobody, so this is no effect.
	one := &call{op: opTransitSign, method: http.MethodPut, path: t.path("sign", name), body: body}
	out, err := t.client.do(ctx, one)
	if err != nil {
		return nil, err
	}
	var data struct {
		Results []signResult `json:"batch_results"`
	}
	if err := out.into(one, &data); err != nil {
		return nil, err
	}
	if len(data.Results) != len(inputs) {
		return nil, unexpected(one, fmt.Sprintf("%d signatures for %d inputs", len(data.Results), len(inputs)))
	}
	signatures := make([]Signature, len(inputs))
	for i, r := range data.Results {
		signatures[i].Raw, signatures[i].Err = r.signature(one, version)
	}
	return signatures, nil
}

type signResult struct {
	Signature string `json:"signature"`
	Error     string `json:"error"`
}

// signature decodes one item, and holds it to the version that was asked for.
func (r signResult) signature(one *call, version int) ([]byte, error) {
	if r.Error != "" {
		body, _ := json.Marshal(errorBody{Errors: []string{r.Error}}) //nolint:errchkjson // strings only
		return nil, answerError(one, http.StatusBadRequest, nil, body)
	}
	encoded, ok := strings.CutPrefix(r.Signature, "vault:v"+strconv.Itoa(version)+":")
	if !ok {
		return nil, unexpected(one, "a signature of another key version")
	}
	raw, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(raw) == 0 {
		return nil, unexpected(one, "a signature in another encoding")
	}
	return raw, nil
}

// Encrypt returns Vault's ciphertext ("vault:v1:…"), bound to aad. Decrypt
// needs the same aad.
func (t *Transit) Encrypt(ctx context.Context, name string, plaintext, aad []byte) (string, error) {
	one := &call{op: opTransitEncrypt, method: http.MethodPut, path: t.path("encrypt", name), body: map[string]any{
		"plaintext": base64.StdEncoding.EncodeToString(plaintext), "associated_data": base64.StdEncoding.EncodeToString(aad),
	}}
	out, err := t.client.do(ctx, one)
	if err != nil {
		return "", err
	}
	var data struct {
		Ciphertext string `json:"ciphertext"`
	}
	if err := out.into(one, &data); err != nil {
		return "", err
	}
	if !strings.HasPrefix(data.Ciphertext, "vault:v") {
		return "", unexpected(one, "no ciphertext")
	}
	return data.Ciphertext, nil
}

// Decrypt opens what Encrypt made. Bytes that were altered, another key's, or
// bound to another aad are ErrRefused.
func (t *Transit) Decrypt(ctx context.Context, name, ciphertext string, aad []byte) ([]byte, error) {
	one := &call{op: opTransitDecrypt, method: http.MethodPut, path: t.path("decrypt", name), body: map[string]any{
		"ciphertext": ciphertext, "associated_data": base64.StdEncoding.EncodeToString(aad),
	}}
	out, err := t.client.do(ctx, one)
	if err != nil {
		return nil, err
	}
	var data struct {
		Plaintext string `json:"plaintext"`
	}
	if err := out.into(one, &data); err != nil {
		return nil, err
	}
	plain, err := base64.StdEncoding.DecodeString(data.Plaintext)
	if err != nil {
		return nil, unexpected(one, "plaintext in another encoding")
	}
	return plain, nil
}

// CiphertextVersion returns the version of the key that made a ciphertext.
func CiphertextVersion(ciphertext string) (int, error) {
	rest, ok := strings.CutPrefix(ciphertext, "vault:v")
	number, _, found := strings.Cut(rest, ":")
	version, err := strconv.Atoi(number)
	if !ok || !found || err != nil || version < 1 || strconv.Itoa(version) != number {
		return 0, errors.New("vault: not a ciphertext of Transit")
	}
	return version, nil
}

func (t *Transit) path(verb, name string) string { return t.mount + "/" + verb + "/" + name }

// Create makes a key, not exportable and without plaintext backup. A key that
// exists is left as it is, whatever its type: look at it with Key.
func (t *Transit) Create(ctx context.Context, name, typ string) error {
	_, err := t.client.do(ctx, &call{op: opTransitKey, method: http.MethodPut, path: t.path("keys", name), effect: true,
		body: map[string]any{"type": typ, "exportable": false, "allow_plaintext_backup": false, "derived": false}})
	return err
}

// Rotate adds a version and returns its number, which Vault says under the lock
// that it made it under; 0 from a Vault that doesn't say.
func (t *Transit) Rotate(ctx context.Context, name string) (int, error) {
	one := &call{op: opTransitKey, method: http.MethodPut, path: t.path("keys", name) + "/rotate", effect: true}
	out, err := t.client.do(ctx, one)
	if err != nil || len(out.Data) == 0 {
		return 0, err
	}
	var data struct {
		Latest int `json:"latest_version"`
	}
	return data.Latest, out.into(one, &data)
}

// SetMinimums sets the oldest versions that verify or decrypt, and that sign
// or encrypt (0: the latest only).
func (t *Transit) SetMinimums(ctx context.Context, name string, decryption, encryption int) error {
	_, err := t.client.do(ctx, &call{op: opTransitKey, method: http.MethodPut, path: t.path("keys", name) + "/config", effect: true,
		body: map[string]any{"min_decryption_version": decryption, "min_encryption_version": encryption}})
	return err
}

// AllowDeletion lets Delete remove a key, or forbids it again.
func (t *Transit) AllowDeletion(ctx context.Context, name string, allow bool) error {
	_, err := t.client.do(ctx, &call{op: opTransitKey, method: http.MethodPut, path: t.path("keys", name) + "/config", effect: true,
		body: map[string]any{"deletion_allowed": allow}})
	return err
}

// Delete removes a key with all its versions, where AllowDeletion said so.
func (t *Transit) Delete(ctx context.Context, name string) error {
	_, err := t.client.do(ctx, &call{op: opTransitKey, method: http.MethodDelete, path: t.path("keys", name), effect: true})
	return err
}
