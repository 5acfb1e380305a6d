package examples

import (
	"encoding/json"
	"testing"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// Each setting is one that Envoy has, with a value that it takes: a word that it
// doesn't know would have it refuse the file.
func TestEnvoyKnowsWhatTheExampleSays(t *testing.T) {
	said, err := json.Marshal(parsed(t, envoy))
	if err != nil {
		t.Fatal(err)
	}
	var b bootstrap.Bootstrap
	if err := protojson.Unmarshal(said, &b); err != nil { // refuses fields and types that there aren't
		t.Fatal(err)
	}
	if err := b.ValidateAll(); err != nil {
		t.Error(err)
	}
	seen := 0
	err = protorange.Range(b.ProtoReflect(), func(v protopath.Values) error {
		m, ok := v.Index(-1).Value.Interface().(protoreflect.Message)
		if !ok {
			return nil
		}
		packed, ok := m.Interface().(*anypb.Any)
		if !ok {
			return nil
		}
		inner, err := packed.UnmarshalNew()
		if err != nil {
			return err
		}
		seen++
		rules, ok := inner.(interface{ ValidateAll() error })
		if !ok {
			t.Errorf("%s has no rules", packed.GetTypeUrl())
			return nil
		}
		if err := rules.ValidateAll(); err != nil {
			t.Errorf("%s: %v", packed.GetTypeUrl(), err)
		}
		return nil
	})
	if err != nil || seen != 7 {
		t.Errorf("%d extensions: %v", seen, err)
	}
}
