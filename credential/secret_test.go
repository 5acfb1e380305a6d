package credential_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
)

// holder keeps a secret where fmt can't reach its methods.
type holder struct {
	secret credential.Secret
	nested *holder
}

func TestSecretIsNeverShown(t *testing.T) {
	const value = "correct horse battery staple"
	s := credential.NewSecret([]byte(value))
	var shown []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%10.3s"} {
		for _, v := range []any{s, &s, []credential.Secret{s}, map[string]credential.Secret{"a": s}, struct{ S credential.Secret }{s},
			holder{secret: s}, &holder{secret: s}, holder{nested: &holder{secret: s}}, []any{holder{secret: s}}} {
			shown = append(shown, fmt.Sprintf(verb, v))
		}
	}
	for _, v := range []any{s, &s, struct{ S credential.Secret }{s}, map[string]any{"s": s}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, string(b))
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "h", holder{secret: s})
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "h", struct{ S credential.Secret }{s})
	shown = append(shown, log.String(), s.String(), fmt.Errorf("x: %v", s).Error())

	forms := []string{value, fmt.Sprintf("%d", []byte(value)), fmt.Sprintf("%x", value), fmt.Sprintf("%X", value), strings.Trim(fmt.Sprintf("%d", []byte(value[:4])), "[]"), fmt.Sprintf("%#v", []byte(value))[7:20]}
	for _, text := range shown {
		for _, form := range forms {
			if strings.Contains(text, form) {
				t.Errorf("shown: %s", strings.ReplaceAll(text, form, "<the secret>"))
			}
		}
	}
}

func TestSecretEqualsItsValueAlone(t *testing.T) {
	a, b := credential.NewSecret([]byte("a")), credential.NewSecret([]byte("b"))
	var none credential.Secret
	if !a.Equal(credential.NewSecret([]byte("a"))) || a.Equal(b) || a.Equal(none) || none.Equal(a) {
		t.Error("compares wrong")
	}
	if none.Equal(none) || none.Equal(credential.NewSecret(nil)) || !credential.NewSecret(nil).IsZero() || none.Reveal() != nil {
		t.Error("none equals something, or is something")
	}
}

func TestSecretDoesNotChangeWithItsCaller(t *testing.T) {
	value := []byte("value")
	s := credential.NewSecret(value)
	clear(value)
	clear(s.Reveal())
	if string(s.Reveal()) != "value" || s.IsZero() {
		t.Error("changed")
	}
}

func TestGeneratedSecretsAndIDsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		s, id := string(credential.GenerateSecret().Reveal()), credential.NewID()
		if len(s) != 43 || len(id) != 22 || seen[s] || seen[id] {
			t.Fatal("short, or seen before")
		}
		seen[s], seen[id] = true, true
	}
}
