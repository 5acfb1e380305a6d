package keys

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// hearing is a KEK that tells a test what it seals. It holds functions only.
type hearing struct {
	seal, open func(ctx context.Context, in, aad []byte) ([]byte, error)
}

func (h hearing) Seal(ctx context.Context, p, aad []byte) ([]byte, error) { return h.seal(ctx, p, aad) }
func (h hearing) Open(ctx context.Context, s, aad []byte) ([]byte, error) { return h.open(ctx, s, aad) }

// needles are all forms in which secret bytes could show.
func needles(secret []byte) [][]byte {
	decimal := strings.Trim(fmt.Sprintf("%d", secret), "[]") // as %v shows bytes
	return [][]byte{
		secret, []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret))),
		[]byte(base64.RawStdEncoding.EncodeToString(secret)), []byte(base64.RawURLEncoding.EncodeToString(secret)),
		[]byte(decimal), []byte(strings.ReplaceAll(decimal, " ", ",")), []byte(strings.ReplaceAll(decimal, " ", ", ")),
		[]byte(strings.Trim(fmt.Sprintf("%#v", secret), "[]byte{}")),
	}
}

func TestNothingThisPackageHandsOutShowsAPrivateKey(t *testing.T) {
	for _, alg := range []credential.Algorithm{credential.ES256, credential.EdDSA, credential.RS256} {
		t.Run(string(alg), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kek")
			if err := GenerateKeyFile(path); err != nil {
				t.Fatal(err)
			}
			file, err := LoadKeyFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := os.ReadFile(path)
			kek, err := parseKeyFile(text)
			if err != nil {
				t.Fatal(err)
			}
			secrets := [][]byte{kek}
			kekHearing := hearing{func(ctx context.Context, p, aad []byte) ([]byte, error) {
				parsed, err := x509.ParsePKCS8PrivateKey(p)
				if err != nil {
					return nil, err
				}
				switch k := parsed.(type) {
				case *ecdsa.PrivateKey:
					d, _ := k.Bytes()
					secrets = append(secrets, d)
				case ed25519.PrivateKey:
					secrets = append(secrets, k.Seed())
				case *rsa.PrivateKey:
					secrets = append(secrets, k.D.Bytes(), k.Primes[0].Bytes())
				}
				return file.Seal(ctx, p, aad)
			}, file.Open}
			st := openStore(t)
			m := startManager(t, Config{Store: st, Home: Sealed(kekHearing), Policy: Policy{Algorithm: alg}})
			auditor, err := AuditKey(t.Context(), st, kekHearing, newClock().now)
			if err != nil {
				t.Fatal(err)
			}
			if len(secrets) < 4 {
				t.Fatalf("%d secrets heard", len(secrets))
			}
			active, _ := m.Active()
			impact, _ := m.Impact(t.Context(), active.KeyID())
			var row []byte
			_ = st.View(t.Context(), func(r store.Reader) error {
				for got, err := range r.Scan(signingTable, "", "") {
					if err != nil {
						return err
					}
					row = append(row, got.Value...)
				}
				return nil
			})
			things := map[string]any{
				"manager": m, "signer": active, "signer value": reflect.ValueOf(active).Elem().Interface(),
				"signing key": active.key, "home": m.home, "kek": file, "keks": KEKs(file, file), "key info": m.List(),
				"set": m.Public(), "snapshot": *m.state(), "wait": m.Waiting(), "impact": impact, "auditor": auditor,
				"signers": m.signers, "spares": m.spares, "rows": row, "plan": m.plan(registry.By{}),
			}
			for name, thing := range things {
				for how, shown := range shownAs(thing) {
					for _, secret := range secrets {
						for _, needle := range needles(secret) {
							if bytes.Contains(shown, needle) {
								t.Fatalf("%s as %s shows a secret", name, how)
							}
						}
					}
				}
				if name != "auditor" { // of another package
					walk(t, name, reflect.ValueOf(thing), secrets, make(map[unsafe.Pointer]bool))
				}
			}
		})
	}
}

func shownAs(thing any) map[string][]byte {
	shown := make(map[string][]byte)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown[verb] = fmt.Appendf(nil, verb, thing)
	}
	shown["JSON"], _ = json.Marshal(thing)
	var text, doc bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "thing", thing)
	slog.New(slog.NewJSONHandler(&doc, nil)).Info("x", "thing", thing)
	shown["slog text"], shown["slog JSON"] = text.Bytes(), doc.Bytes()
	return shown
}

// walk goes through everything that v reaches, unexported fields included, as a
// debugger's or a careless encoder's reflection would, and finds private keys
// by their type and by their bytes.
func walk(t *testing.T, path string, v reflect.Value, secrets [][]byte, been map[unsafe.Pointer]bool) {
	if !v.IsValid() {
		return
	}
	switch v.Interface().(type) {
	case ecdsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey, rsa.PrivateKey, *rsa.PrivateKey:
		t.Fatalf("%s is a %s", path, v.Type())
	case *slog.Logger, store.Store:
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() || been[v.UnsafePointer()] {
			return
		}
		been[v.UnsafePointer()] = true
		walk(t, path, v.Elem(), secrets, been)
	case reflect.Interface:
		walk(t, path, v.Elem(), secrets, been)
	case reflect.Struct:
		if !v.CanAddr() {
			copied := reflect.New(v.Type()).Elem()
			copied.Set(v)
			v = copied
		}
		for i := range v.NumField() {
			f := v.Field(i)
			open := reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
			walk(t, path+"."+v.Type().Field(i).Name, open, secrets, been)
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			walk(t, path+"[]", it.Value(), secrets, been)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 && v.Kind() == reflect.Slice {
			for _, secret := range secrets {
				if bytes.Contains(v.Bytes(), secret) {
					t.Fatalf("%s holds a secret", path)
				}
			}
			return
		}
		for i := range v.Len() {
			walk(t, path+"[]", v.Index(i), secrets, been)
		}
	}
}
