package vault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

func TestKVCheckAndSet(t *testing.T) {
	kv := asRoot(t, shared(t)).KV("kv")
	const path = "cas/one"
	if v, err := kv.Get(t.Context(), path); !errors.Is(err, vault.ErrNotFound) || v.Version != 0 {
		t.Fatalf("nothing there: %v, %v", v, err)
	}
	version, err := kv.Put(t.Context(), path, map[string]any{"password": "first", "n": 1}, 0)
	if err != nil || version != 1 {
		t.Fatalf("%d, %v", version, err)
	}
	if _, err := kv.Put(t.Context(), path, map[string]any{"password": "second"}, 0); !errors.Is(err, vault.ErrConflict) || errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("a second first version: %v", err)
	}
	if version, err = kv.Put(t.Context(), path, map[string]any{"password": "second"}, 1); err != nil || version != 2 {
		t.Fatalf("%d, %v", version, err)
	}
	if version, err = kv.Put(t.Context(), path, map[string]any{"password": "third"}, vault.NoCAS); err != nil || version != 3 {
		t.Fatalf("%d, %v", version, err)
	}
	got, err := kv.GetVersion(t.Context(), path, 1)
	if err != nil || got.Version != 1 || !reflect.DeepEqual(got.Data, map[string]any{"password": "first", "n": json.Number("1")}) {
		t.Errorf("version %d, %v", got.Version, err)
	}
	if got, err = kv.Get(t.Context(), path); err != nil || got.Data["password"] != "third" || got.CreatedAt.IsZero() {
		t.Errorf("%v, %v", got, err)
	}
}

func TestKVTellsADestroyedVersionFromNone(t *testing.T) {
	s := shared(t)
	kv := asRoot(t, s).KV("kv")
	const path = "destroyed"
	for range 3 {
		_, err := kv.Put(t.Context(), path, map[string]any{"password": "x"}, vault.NoCAS)
		must(t, err)
	}
	must(t, kv.Destroy(t.Context(), path, 1))
	must(t, kv.Destroy(t.Context(), path, 1)) // again: no error
	root(t, s, http.MethodPut, "kv/delete/"+path, map[string]any{"versions": []int{2}})

	v, err := kv.GetVersion(t.Context(), path, 1)
	if !errors.Is(err, vault.ErrNotFound) || v.Version != 1 || !v.Destroyed || v.Data != nil {
		t.Errorf("destroyed: %v, %v", v, err)
	}
	v, err = kv.GetVersion(t.Context(), path, 2)
	if !errors.Is(err, vault.ErrNotFound) || v.Version != 2 || v.Destroyed || v.DeletedAt.IsZero() {
		t.Errorf("deleted: %v, %v", v, err)
	}
	v, err = kv.GetVersion(t.Context(), path, 9)
	if !errors.Is(err, vault.ErrNotFound) || v.Version != 0 {
		t.Errorf("never was: %v, %v", v, err)
	}
	m, err := kv.Metadata(t.Context(), path)
	must(t, err)
	if m.CurrentVersion != 3 || !m.Versions[1].Destroyed || m.Versions[2].DeletedAt.IsZero() || m.Versions[3].Destroyed {
		t.Errorf("%+v", m)
	}
	must(t, kv.DeleteAll(t.Context(), path))
	if _, err := kv.Metadata(t.Context(), path); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("after DeleteAll: %v", err)
	}
}

func TestKVCustomMetadataMakesNoVersion(t *testing.T) {
	kv := asRoot(t, shared(t)).KV("kv")
	_, err := kv.Put(t.Context(), "custom/a", map[string]any{"v": "1"}, 0)
	must(t, err)
	must(t, kv.SetCustomMetadata(t.Context(), "custom/a", map[string]string{"nonce": "abc"}))
	v, err := kv.Get(t.Context(), "custom/a")
	if err != nil || v.Version != 1 || v.Custom["nonce"] != "abc" {
		t.Errorf("%v %v, %v", v, v.Custom, err)
	}
	names, err := kv.List(t.Context(), "custom")
	if err != nil || !reflect.DeepEqual(names, []string{"a"}) {
		t.Errorf("%v, %v", names, err)
	}
	if names, err = kv.List(t.Context(), "no/such/folder"); err != nil || len(names) != 0 {
		t.Errorf("%v, %v", names, err)
	}
}

func TestAValueIsNotPrinted(t *testing.T) {
	v := vault.KVValue{Data: map[string]any{"password": "hunter2-planted"}, Version: 3}
	s := vault.Secret{Data: v.Data}
	for _, shown := range []string{
		fmt.Sprintf("%v %+v %#v %s", v, v, v, v), fmt.Sprintf("%v %+v %#v %s", s, s, s, s), fmt.Sprintf("%+v", &s), fmt.Sprint([]any{v, &v, s}),
		marshalled(t, v), marshalled(t, s), marshalled(t, &s),
	} {
		if contains(shown, "hunter2") {
			t.Errorf("shown: %s", shown)
		}
	}
}

func TestByPath(t *testing.T) {
	c := asRoot(t, shared(t))
	if _, err := c.Write(t.Context(), "kv/data/by/path", map[string]any{"data": map[string]any{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	got, err := c.Read(t.Context(), "kv/data/by/path")
	must(t, err)
	if inner, _ := got.Data["data"].(map[string]any); inner["a"] != "b" {
		t.Errorf("%d members", len(got.Data))
	}
	names, err := c.List(t.Context(), "kv/metadata/by")
	if err != nil || !reflect.DeepEqual(names, []string{"path"}) {
		t.Errorf("%v, %v", names, err)
	}
	must(t, c.Delete(t.Context(), "kv/metadata/by/path"))
	if _, err := c.Read(t.Context(), "kv/data/by/path"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("after Delete: %v", err)
	}
	for _, path := range []string{"", "/kv/data/x", "kv//x", "kv/../sys/seal", "kv/./x", "kv/data/x?version=1", "kv/data/a b", "kv/%2e%2e/x", "kv\\x", "kv/x#y"} {
		if _, err := c.Read(t.Context(), path); !errors.Is(err, vault.ErrConfig) {
			t.Errorf("path %q: %v", path, err)
		}
	}
}
