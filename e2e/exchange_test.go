package e2e

import (
	"net/http"
	"testing"
	"time"
)

// I3: whoever holds a platform's token about to end gets nothing that lives
// on, whatever the grant allows.
func TestInvariant_I3_AnExchangedTokenNeverOutlivesItsSubjectToken(t *testing.T) {
	w := newWorld(t)
	ending := func(at time.Time) string {
		return w.platform.token(t, w.URL(), globex, func(c map[string]any) {
			c["iat"], c["exp"] = at.Add(-time.Hour).Unix(), at.Unix()
		})
	}
	for _, left := range []time.Duration{10 * time.Second, 90 * time.Second, time.Hour} {
		end := time.Now().Add(left).Truncate(time.Second)
		subject := ending(end)
		for range 2 { // verified, and remembered
			a := w.mustToken(w.exchange(subject, globex))
			got := claims(t, a.AccessToken)
			if got.Expires.After(end) {
				t.Errorf("the subject token ends in %v; the access token lives %v longer", left, got.Expires.Sub(end))
			}
			// What is left when it is answered: a second may have begun since.
			if life := int64(got.Expires.Sub(got.IssuedAt) / time.Second); a.ExpiresIn > life || a.ExpiresIn < life-5 {
				t.Errorf("expires_in %d, the token lives %d s", a.ExpiresIn, life)
			}
		}
	}
	over := ending(time.Now().Add(-20 * time.Second)) // within the leeway between clocks
	a := w.token(w.exchange(over, globex))
	if a.status != http.StatusBadRequest || a.Error != "invalid_request" {
		t.Errorf("an expired subject token: %d %s", a.status, a.Error)
	}

	// As a client assertion it says who asks, now; the token is the account's own.
	form := w.form(mailer, globex)
	form.Set("client_assertion", ending(time.Now().Add(20*time.Second)))
	if got := claims(t, w.mustToken(form).AccessToken); got.Expires.Sub(got.IssuedAt) != 5*time.Minute {
		t.Errorf("as an assertion: %v", got.Expires.Sub(got.IssuedAt))
	}
}
