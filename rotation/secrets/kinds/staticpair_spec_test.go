package kinds_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const goodPair = `{"mount":"database","roles":[{"role":"orders-a","username":"orders_a"},{"role":"orders-b","username":"orders_b"}],` +
	`"publish":{"path":"shared/orders"},"postgres":{"host":"db.example","database":"orders"},"query":"SELECT 1"}`

func checkPair(spec string, tenant string) (secrets.Checked, error) {
	about := secrets.Subject{ID: "orders"}
	if tenant != "" {
		about.Tenant = credential.MustTenant(tenant)
	}
	return kinds.NewStaticPair(nil, nil, kinds.DefaultLayout()).Check(json.RawMessage(spec), about)
}

func TestSpecOfAPair(t *testing.T) {
	checked, err := checkPair(goodPair, "")
	if err != nil {
		t.Fatal(err)
	}
	if !checked.Whole {
		t.Error("operators of one tenant may have the broker connect to a host of theirs")
	}
	const canonical = `{"mount":"database","roles":[{"role":"orders-a","username":"orders_a"},{"role":"orders-b","username":"orders_b"}],` +
		`"publish":{"mount":"secret","path":"shared/orders"},"postgres":{"host":"db.example","port":5432,"database":"orders","sslmode":"verify-full"},"query":"SELECT 1"}`
	if string(checked.Spec) != canonical {
		t.Errorf("%s", checked.Spec)
	}
	for _, resource := range []string{
		"database-static::database/orders-a", "database-static::database/orders-b", "kv::secret/shared/orders",
		"postgres-user:db.example:5432/orders_a", "postgres-user:db.example:5432/orders_b",
	} {
		if !slices.Contains(checked.Resources, resource) {
			t.Errorf("%q lacks %s", checked.Resources, resource)
		}
	}
}

func TestSpecsOfPairsThatAreRefused(t *testing.T) {
	long := strings.Repeat("x", 600)
	for name, c := range map[string]struct{ old, new, field string }{
		"one role":                    {`,{"role":"orders-b","username":"orders_b"}`, ``, "spec.roles"},
		"three roles":                 {`"roles":[`, `"roles":[{"role":"c","username":"c"},`, "spec.roles"},
		"one role twice":              {`"orders-b"`, `"orders-a"`, "spec.roles"},
		"one user twice":              {`"orders_b"`, `"orders_a"`, "spec.roles"},
		"no user":                     {`"orders_b"`, `""`, "spec.roles.username"},
		"a user that PostgreSQL cuts": {`"orders_b"`, `"` + long[:64] + `"`, "spec.roles.username"},
		"a role that is a path":       {`"orders-b"`, `"a/../b"`, "spec.roles.role"},
		"a member unknown":            {`"mount":"database"`, `"mounts":"database"`, "spec"},
		"a password":                  {`"database":"orders"`, `"database":"orders","password":"x"`, "spec.postgres"},
		"a member twice":              {`"host":"db.example"`, `"host":"db.example","host":"other"`, "spec"},
		"another case":                {`"host":"db.example"`, `"Host":"db.example"`, "spec.postgres"},
		"no host":                     {`"host":"db.example",`, ``, "spec.postgres.host"},
		"a socket":                    {`"db.example"`, `"/var/run"`, "spec.postgres.host"},
		"several hosts":               {`"db.example"`, `"a,b"`, "spec.postgres.host"},
		"options in the host":         {`"db.example"`, `"a user=x"`, "spec.postgres.host"},
		"no such port":                {`"database":"orders"`, `"database":"orders","port":65536`, "spec.postgres.port"},
		"port 0":                      {`"database":"orders"`, `"database":"orders","port":0`, "spec.postgres.port"},
		"no database":                 {`"database":"orders"`, `"database":""`, "spec.postgres.database"},
		"no TLS to another host":      {`"database":"orders"`, `"database":"orders","sslmode":"disable"`, "spec.postgres.sslmode"},
		"TLS that verifies nothing":   {`"database":"orders"`, `"database":"orders","sslmode":"require"`, "spec.postgres.sslmode"},
		"no certificate":              {`"database":"orders"`, `"database":"orders","ca":"x"`, "spec.postgres.ca"},
		"a long query":                {`SELECT 1`, long, "spec.query"},
		"no publish":                  {`"publish":{"path":"shared/orders"},`, ``, "spec.publish"},
		"another tenant's folder":     {`shared/orders`, `tenants/globex/orders`, "spec.publish.path"},
		"where values wait":           {`shared/orders`, `shared/orders.next`, "spec.publish.path"},
		"null":                        {`"query":"SELECT 1"`, `"query":null`, "spec.query"},
		"a mount that is a path up":   {`"mount":"database"`, `"mount":"../sys"`, "spec.mount"},
		"a namespace that is none":    {`"mount":"database"`, `"namespace":"a//b"`, "spec.namespace"},
	} {
		if !strings.Contains(goodPair, c.old) {
			t.Fatalf("%s: the spec has no %s", name, c.old)
		}
		_, err := checkPair(strings.Replace(goodPair, c.old, c.new, 1), "acme")
		var invalid *registry.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != c.field {
			t.Errorf("%s: %v, not about %s", name, err, c.field)
		}
	}
}

func TestLoopbackMayGoWithoutTLS(t *testing.T) {
	for host, fine := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.1.2.3": true, "::1": true,
		"10.0.0.1": false, "localhost.example": false, "0.0.0.0": false, "::ffff:10.0.0.1": false,
	} {
		spec := strings.Replace(goodPair, `"host":"db.example"`, `"host":"`+host+`","sslmode":"disable"`, 1)
		if _, err := checkPair(spec, ""); (err == nil) != fine {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestAuthoritiesOfASpec(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	for text, fine := range map[string]bool{
		certificate: true, certificate + certificate: true, certificate + "rest": false,
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})): false,
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: private})): false,
	} {
		encoded, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		spec := strings.Replace(goodPair, `"database":"orders"`, `"database":"orders","ca":`+string(encoded), 1)
		if _, err := checkPair(spec, ""); (err == nil) != fine {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzSpecOfAPair(f *testing.F) {
	f.Add(goodPair)
	f.Add(strings.Replace(goodPair, `"database":"orders"`, `"database":"orders","sslmode":"disable","port":1`, 1))
	f.Add(`{"roles":[{},{}],"publish":{},"postgres":{}}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, spec string) {
		checked, err := checkPair(spec, "acme")
		if err != nil {
			if !errors.Is(err, registry.ErrInvalid) {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := checkPair(string(checked.Spec), "acme")
		if err != nil || !bytes.Equal(again.Spec, checked.Spec) || !slices.Equal(again.Resources, checked.Resources) {
			t.Fatalf("what was checked is read otherwise: %s, %s, %v", checked.Spec, again.Spec, err)
		}
		if !checked.Whole || len(checked.Resources) != 6 {
			t.Fatalf("%+v", checked)
		}
	})
}
