package registry_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

var worker = credential.MustAccountID("worker")

func (w *world) add(c registry.Credential) (registry.Credential, error) {
	_, added, err := w.AddCredential(w.ctx(), admin, worker, 0, c)
	return added, err
}

func (w *world) accountAt(id string) (*registry.Account, store.Ref) {
	w.t.Helper()
	var a *registry.Account
	var ref store.Ref
	err := w.st.View(w.ctx(), func(r store.Reader) (err error) {
		a, ref, err = w.AccountAt(r, credential.MustAccountID(id))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return a, ref
}

func TestAKeyIsKeptInItsCanonicalFormAndParsedOncePerVersion(t *testing.T) {
	w := stage(t)
	messy := strings.Replace(publicJWK(t, "k1"), "{", `{ "x-note":"mine", `, 1)
	added := must(w.add(registry.Credential{Kind: registry.PublicKey, JWK: messy}))(t)
	if added.ID != "k1" || added.Algorithm != credential.ES256 || strings.Contains(added.JWK, "note") || !added.CreatedAt.Equal(start) {
		t.Fatalf("%+v", added)
	}
	a, ref := w.accountAt("worker")
	key, ok := a.Key("k1")
	if sole, one := a.SoleKey(); !ok || !one || !sole.Equal(key) || string(key.JWK()) != added.JWK {
		t.Fatal("the account doesn't answer its key")
	}
	if again, _ := w.accountAt("worker"); again != a {
		t.Error("decoded twice at one version")
	}
	must(w.add(registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(t, "k2")}))(t)
	next, nextRef := w.accountAt("worker")
	if _, ok := next.Key("k2"); !ok || nextRef.Version == ref.Version {
		t.Error("a new key is not seen")
	}
	if _, one := next.SoleKey(); one {
		t.Error("two keys are one")
	}
	if _, ok := a.Key("k2"); ok {
		t.Error("an object that somebody holds was changed")
	}
}

func TestAKeyWithoutKidIsNamedByItsThumbprint(t *testing.T) {
	w := stage(t)
	key, err := jwks.ParseKey([]byte(publicJWK(t, "")))
	if err != nil {
		t.Fatal(err)
	}
	added := must(w.add(registry.Credential{Kind: registry.PublicKey, JWK: publicJWKOf(t, key)}))(t)
	if added.ID != key.Thumbprint() {
		t.Errorf("id %q", added.ID)
	}
}

func publicJWKOf(t *testing.T, k jwks.Key) string { t.Helper(); return string(k.JWK()) }

func TestAnRSAKeyServesTheAlgorithmAskedFor(t *testing.T) {
	w := stage(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	jwk := fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, base64.RawURLEncoding.EncodeToString(key.N.Bytes()))
	_, err = w.add(registry.Credential{Kind: registry.PublicKey, JWK: jwk, Algorithm: credential.ES256})
	wantInvalid(t, err, "credentials.alg")
	added := must(w.add(registry.Credential{Kind: registry.PublicKey, JWK: jwk, Algorithm: credential.PS256}))(t)
	if added.Algorithm != credential.PS256 {
		t.Errorf("%+v", added)
	}
	if a, _ := w.accountAt("worker"); func() bool { k, ok := a.Key(added.ID); return !ok || k.Algorithm() != credential.PS256 }() {
		t.Error("kept under another algorithm")
	}
}

func TestPrivateKeyMaterialIsRefusedAndNotEchoed(t *testing.T) {
	w := stage(t)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	raw, _ := ec.Bytes()
	secret := base64.RawURLEncoding.EncodeToString(raw)
	der, _ := x509.MarshalPKCS8PrivateKey(ec)
	asPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	for name, jwk := range map[string]string{
		"private JWK":       strings.Replace(publicJWK(t, "k"), "{", `{"d":"`+secret+`",`, 1),
		"escaped name":      strings.Replace(publicJWK(t, "k"), "{", `{"\u0064":"`+secret+`",`, 1),
		"symmetric":         `{"kty":"oct","k":"` + secret + `"}`,
		"set of private":    `{"keys":[{"kty":"EC","d":"` + secret + `"}]}`,
		"PEM":               asPEM,
		"private broken up": `{"kty":"RSA","qi":"` + secret + `"}`,
	} {
		_, err := w.add(registry.Credential{Kind: registry.PublicKey, JWK: jwk})
		wantInvalid(t, err, "credentials.jwk")
		if !strings.Contains(err.Error(), "private") || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
		i := platform("static", "https://static.example")
		i.Discovery, i.JWKS = false, jwk
		_, err = w.CreateIssuer(w.ctx(), admin, i)
		wantInvalid(t, err, "jwks")
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the issuer's error echoes it", name)
		}
	}
}

func TestTheSameKeyIsRegisteredOnce(t *testing.T) {
	w := stage(t)
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	named := func(kid string) registry.Credential {
		k, err := jwks.NewKey(kid, credential.EdDSA, pub)
		if err != nil {
			t.Fatal(err)
		}
		return registry.Credential{Kind: registry.PublicKey, JWK: string(k.JWK())}
	}
	must(w.add(named("one")))(t)
	_, err := w.add(named("two"))
	wantErr(t, err, registry.ErrExists) // at the same account
	_, _, err = w.AddCredential(w.ctx(), admin, credential.MustAccountID("acme-worker"), 0, named("three"))
	wantErr(t, err, registry.ErrExists)
	_, err = w.CreateAccount(w.ctx(), admin, registry.Account{
		ID: credential.MustAccountID("new"), Home: credential.System, Owner: "x", Credentials: []registry.Credential{named("four")},
	})
	wantErr(t, err, registry.ErrExists)
	_, err = w.add(registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(t, "one")})
	wantErr(t, err, registry.ErrExists) // another key under the same kid

	must(w.RemoveCredential(w.ctx(), admin, worker, 0, "one"))(t)
	must(w.add(named("two")))(t)
	w.checkDerived()
}

func TestAClientSecretIsShownOnceAndKeptHashed(t *testing.T) {
	w := stage(t)
	end := start.Add(90 * 24 * time.Hour)
	account, made, secret, err := w.CreateClientSecret(w.ctx(), admin, worker, 0, end)
	if err != nil {
		t.Fatal(err)
	}
	if len(secret.Reveal()) != 43 || made.SecretHash != "" || !made.ExpiresAt.Equal(end) || account.Credentials[0].SecretHash != "" {
		t.Fatalf("made %+v, account %+v", made, account)
	}
	shown := must(w.Account(w.ctx(), admin, worker))(t)
	listed, _, err := w.ListAccounts(w.ctx(), admin, registry.Page{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range append(listed, shown) {
		for _, c := range a.Credentials {
			if c.SecretHash != "" {
				t.Error("an operator's read shows the hash")
			}
		}
	}
	a, _ := w.accountAt("worker")
	sum := sha256.Sum256(secret.Reveal())
	if a.Credentials[0].SecretHash != hex.EncodeToString(sum[:]) {
		t.Error("kept otherwise than as SHA-256 in hex")
	}
	if c, ok := a.MatchSecret(secret, start); !ok || c.ID != made.ID {
		t.Error("the secret is not known")
	}
	for name, try := range map[string]struct {
		secret credential.Secret
		at     time.Time
	}{
		"another":      {credential.GenerateSecret(), start},
		"none":         {credential.Secret{}, start},
		"at its end":   {secret, end},
		"the hash":     {credential.NewSecret([]byte(a.Credentials[0].SecretHash)), start},
		"after an end": {secret, end.Add(time.Hour)},
	} {
		if _, ok := a.MatchSecret(try.secret, try.at); ok {
			t.Errorf("%s: matches", name)
		}
	}
}

func TestInvariant_I6_AClientSecretEndsWithin90Days(t *testing.T) {
	w := stage(t)
	for name, end := range map[string]time.Time{
		"no end": {}, "over": start, "past": start.Add(-time.Hour), "a millisecond too long": start.Add(90*24*time.Hour + time.Millisecond),
	} {
		_, _, secret, err := w.CreateClientSecret(w.ctx(), admin, worker, 0, end)
		wantInvalid(t, err, "expires_at")
		if !secret.IsZero() {
			t.Errorf("%s: a secret was made", name)
		}
	}
	for _, c := range []registry.Credential{
		{Kind: registry.ClientSecret, SecretHash: "00", ExpiresAt: start.Add(time.Hour)},
		{Kind: registry.PublicKey, SecretHash: "00"},
	} {
		_, err := w.add(c)
		wantInvalid(t, err, "credentials")
	}
}

func TestAPlatformIdentityBelongsToOneAccount(t *testing.T) {
	w := stage(t)
	must(w.CreateIssuer(w.ctx(), admin, platform("kube", "https://kube.example")))(t)
	sub := "system:serviceaccount:acme:worker"
	bySubject := registry.Credential{Kind: registry.Platform, Issuer: "kube", Subject: sub}
	added := must(w.add(bySubject))(t)
	_, _, err := w.AddCredential(w.ctx(), admin, credential.MustAccountID("acme-worker"), 0, bySubject)
	wantErr(t, err, registry.ErrExists)

	find := func(issuer, sub string) (id credential.AccountID, err error) {
		err = w.st.View(w.ctx(), func(r store.Reader) (err error) {
			id, err = w.AccountBySubject(r, issuer, sub)
			return err
		})
		return id, err
	}
	if id := must(find("kube", sub))(t); id != worker {
		t.Errorf("found %s", id)
	}
	for _, other := range [][2]string{{"kube", sub + "x"}, {"kube", ""}, {"kub", "e\x00" + sub}, {"kube\x00" + sub, ""}, {"other", sub}, {"kube", strings.Repeat("s", 5000)}, {strings.Repeat("k", 5000), sub}} {
		_, err := find(other[0], other[1])
		wantErr(t, err, registry.ErrNotFound)
	}
	byCondition := registry.Credential{Kind: registry.Platform, Issuer: "kube", Condition: `claims.ns == "acme"`}
	must(w.add(byCondition))(t)
	wantErr(t, w.DeleteIssuer(w.ctx(), admin, "kube", 0), registry.ErrInUse)
	must(w.RemoveCredential(w.ctx(), admin, worker, 0, added.ID))(t)
	wantErr(t, w.DeleteIssuer(w.ctx(), admin, "kube", 0), registry.ErrInUse) // by the condition
	_, err = find("kube", sub)
	wantErr(t, err, registry.ErrNotFound)
	w.checkDerived()

	for name, c := range map[string]registry.Credential{
		"credentials.issuer":    {Kind: registry.Platform, Issuer: "none", Subject: "s"},
		"credentials.subject":   {Kind: registry.Platform, Issuer: "kube"},
		"credentials.condition": {Kind: registry.Platform, Issuer: "kube", Condition: "broken("},
		"credentials.kind":      {Kind: "password"},
		"credentials":           {Kind: registry.Platform, Issuer: "kube", Subject: "s", JWK: "{}"},
	} {
		_, err := w.add(c)
		wantInvalid(t, err, name)
	}
	_, err = w.add(registry.Credential{Kind: registry.Platform, Issuer: "kube", Subject: "s", Condition: "true"})
	wantInvalid(t, err, "credentials.subject")
	_, err = w.add(registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(t, "k"), Issuer: "kube"})
	wantInvalid(t, err, "credentials")
	_, err = w.add(registry.Credential{Kind: registry.Platform, Issuer: "no such\x00id", Subject: "s"})
	wantInvalid(t, err, "credentials.issuer")
}

func TestAnUpdateDoesNotReachCredentialsOrState(t *testing.T) {
	w := stage(t)
	must(w.add(registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(t, "k1")}))(t)
	_, made, secret, err := w.CreateClientSecret(w.ctx(), admin, worker, 0, start.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*registry.Account){
		"id":         func(a *registry.Account) { a.ID = credential.MustAccountID("other") },
		"home":       func(a *registry.Account) { a.Home = credential.MustTenant("acme") },
		"disabled":   func(a *registry.Account) { a.Disabled = true },
		"add":        func(a *registry.Account) { a.Credentials = append(a.Credentials, registry.Credential{}) },
		"remove":     func(a *registry.Account) { a.Credentials = nil },
		"change":     func(a *registry.Account) { a.Credentials[0].ExpiresAt = start },
		"swap a key": func(a *registry.Account) { a.Credentials[0].JWK = publicJWK(t, "k1") },
	} {
		_, err := w.UpdateAccount(w.ctx(), admin, worker, 0, func(a *registry.Account) error { edit(a); return nil })
		wantInvalid(t, err, "id")
		_ = name
	}
	must(w.UpdateAccount(w.ctx(), admin, worker, 0, func(a *registry.Account) error { a.Owner = "new"; return nil }))(t)
	a, _ := w.accountAt("worker")
	if c, ok := a.MatchSecret(secret, start); !ok || c.ID != made.ID || a.Owner != "new" {
		t.Error("an update lost a client secret")
	}
	_, err = w.RemoveCredential(w.ctx(), admin, worker, 0, "none")
	wantErr(t, err, registry.ErrNotFound)
}
