package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// KV is a KV engine, version 2, at one mount.
type KV struct {
	client *Client
	mount  string
}

// KV returns the engine at a mount, e.g. "secret".
func (c *Client) KV(mount string) *KV { return &KV{c, mount} }

// NoCAS as the check of Put overwrites whatever is there.
const NoCAS = -1

// KVValue is one version of a value. No verb of fmt and no logger shows Data.
type KVValue struct {
	Data      map[string]any // nil for a version that is deleted or destroyed
	Version   int
	CreatedAt time.Time
	DeletedAt time.Time // zero: not deleted
	Destroyed bool      // for good
	Custom    map[string]string
}

// Format writes the version and never the data.
func (v KVValue) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "version "+strconv.Itoa(v.Version)+" "+redacted)
}

// MarshalJSON writes a placeholder.
func (KVValue) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue shows slog the version and never the data.
func (v KVValue) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(v)) }

// Get returns the latest version. One that is deleted or destroyed is
// ErrNotFound, and the KVValue says then which version that is; 0 where there
// never was one.
func (k *KV) Get(ctx context.Context, path string) (KVValue, error) { return k.get(ctx, path, nil) }

// GetVersion returns version n, like Get.
func (k *KV) GetVersion(ctx context.Context, path string, n int) (KVValue, error) {
	if n < 1 {
		return KVValue{}, fmt.Errorf("%w: versions count from 1", ErrConfig)
	}
	return k.get(ctx, path, map[string][]string{"version": {strconv.Itoa(n)}})
}

type kvMetadata struct {
	Version   int               `json:"version"`
	Created   time.Time         `json:"created_time"`
	Deleted   string            `json:"deletion_time"` // "" or RFC 3339
	Destroyed bool              `json:"destroyed"`
	Custom    map[string]string `json:"custom_metadata"`
}

func (k *KV) get(ctx context.Context, path string, query map[string][]string) (KVValue, error) {
	one := &call{op: opKVRead, method: http.MethodGet, path: k.mount + "/data/" + path, query: query}
	out, err := k.client.do(ctx, one)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return KVValue{}, err
	}
	var data struct {
		Data     map[string]any `json:"data"`
		Metadata kvMetadata     `json:"metadata"`
	}
	if decodeErr := out.into(one, &data); decodeErr != nil {
		if err != nil {
			return KVValue{}, err // a plain 404: nothing is there
		}
		return KVValue{}, decodeErr
	}
	m := data.Metadata
	value := KVValue{Data: data.Data, Version: m.Version, CreatedAt: m.Created, Destroyed: m.Destroyed, Custom: m.Custom}
	if value.Version < 1 {
		return KVValue{}, unexpected(one, "a value without a version")
	}
	value.DeletedAt = parseTime(m.Deleted)
	return value, err
}

// Put writes a version and returns its number. cas is the version that must be
// the latest (0: none yet), else ErrConflict; or NoCAS.
func (k *KV) Put(ctx context.Context, path string, data map[string]any, cas int) (version int, err error) {
	body := map[string]any{"data": data}
	if cas != NoCAS {
		body["options"] = map[string]any{"cas": cas}
	}
	one := &call{op: opKVWrite, method: http.MethodPut, path: k.mount + "/data/" + path, body: body, effect: true}
	out, err := k.client.do(ctx, one)
	if err != nil {
		return 0, err
	}
	var m kvMetadata
	if err := out.into(one, &m); err != nil {
		return 0, err
	}
	if m.Version < 1 {
		return 0, unexpected(one, "no version of what was written")
	}
	return m.Version, nil
}

// KVMetadata is what is known of all versions of a value.
type KVMetadata struct {
	CurrentVersion int
	OldestVersion  int
	MaxVersions    int
	CASRequired    bool
	CreatedAt      time.Time
	UpdatedAt      time.Time
	Custom         map[string]string
	Versions       map[int]KVVersion
}

// KVVersion is the state of one version.
type KVVersion struct {
	CreatedAt time.Time
	DeletedAt time.Time // zero: not deleted
	Destroyed bool
}

// Metadata reads it without the values.
func (k *KV) Metadata(ctx context.Context, path string) (KVMetadata, error) {
	one := &call{op: opKVRead, method: http.MethodGet, path: k.mount + "/metadata/" + path}
	out, err := k.client.do(ctx, one)
	if err != nil {
		return KVMetadata{}, err
	}
	var data struct {
		Current  int                   `json:"current_version"`
		Oldest   int                   `json:"oldest_version"`
		Max      int                   `json:"max_versions"`
		CAS      bool                  `json:"cas_required"`
		Created  time.Time             `json:"created_time"`
		Updated  time.Time             `json:"updated_time"`
		Custom   map[string]string     `json:"custom_metadata"`
		Versions map[string]kvMetadata `json:"versions"`
	}
	if err := out.into(one, &data); err != nil {
		return KVMetadata{}, err
	}
	m := KVMetadata{
		CurrentVersion: data.Current, OldestVersion: data.Oldest, MaxVersions: data.Max, CASRequired: data.CAS,
		CreatedAt: data.Created, UpdatedAt: data.Updated, Custom: data.Custom, Versions: make(map[int]KVVersion, len(data.Versions)),
	}
	for number, v := range data.Versions {
		n, err := strconv.Atoi(number)
		if err != nil {
			return KVMetadata{}, unexpected(one, "a version that is not a number")
		}
		m.Versions[n] = KVVersion{CreatedAt: v.Created, DeletedAt: parseTime(v.Deleted), Destroyed: v.Destroyed}
	}
	return m, nil
}

// Destroy removes the data of versions for good.
func (k *KV) Destroy(ctx context.Context, path string, versions ...int) error {
	if len(versions) == 0 {
		return nil
	}
	return k.write(ctx, http.MethodPut, "/destroy/", path, map[string]any{"versions": versions})
}

// DeleteAll removes all versions and what is known of them.
func (k *KV) DeleteAll(ctx context.Context, path string) error {
	return k.write(ctx, http.MethodDelete, "/metadata/", path, nil)
}

// SetCustomMetadata replaces the custom metadata: not secret, and without a
// new version.
func (k *KV) SetCustomMetadata(ctx context.Context, path string, custom map[string]string) error {
	return k.write(ctx, http.MethodPut, "/metadata/", path, map[string]any{"custom_metadata": custom})
}

// List lists the names under a folder; those of folders end in a slash.
func (k *KV) List(ctx context.Context, path string) ([]string, error) {
	if path != "" {
		path = "/" + path
	}
	return k.client.list(ctx, opKVRead, k.mount+"/metadata"+path)
}

func (k *KV) write(ctx context.Context, method, verb, path string, body map[string]any) error {
	_, err := k.client.do(ctx, &call{op: opKVWrite, method: method, path: k.mount + verb + path, body: body, effect: true})
	return err
}

// parseTime reads RFC 3339; anything else is no time.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}
