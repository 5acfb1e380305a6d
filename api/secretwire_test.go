package api

import (
	"encoding/json"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

// Of a secret that can't be read only the id is known, and why. A client reads
// that among the others.
func TestWireSecret_ThatCanNotBeRead(t *testing.T) {
	text, err := json.Marshal(wireSecret(secrets.Status{
		Secret: secrets.Secret{ID: "bad"}, Problem: "why", Waiting: secrets.Decision{Action: secrets.Wait, For: secrets.WaitOperator},
	}))
	if err != nil {
		t.Fatal(err)
	}
	var got wire.Secret
	if err := json.Unmarshal(text, &got); err != nil || got.ID != "bad" || got.Status.Problem != "why" || !got.Owner.IsZero() || got.Consumers == nil {
		t.Errorf("%s: %+v, %v", text, got, err)
	}
}
