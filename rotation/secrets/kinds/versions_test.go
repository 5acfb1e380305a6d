package kinds_test

import (
	"testing"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

// The next version is above what consumers may have seen, whatever the broker's
// store knows of it: one that acknowledges what is newer says nothing otherwise,
// and one that used the former value of a number would be taken for seen.
func TestVersionsNeverGoBack(t *testing.T) {
	const left = "of a store that is lost"
	for name, c := range map[string]struct {
		found func(w *kindWorld)
		want  string
	}{
		"declared anew": {func(w *kindWorld) {
			w.write(map[string]any{"value": left, "tenantbroker_version": "7", "tenantbroker_nonce": "n"})
		}, "8"},
		"written over by hand since": {func(w *kindWorld) {
			w.write(map[string]any{"value": left, "tenantbroker_version": "7", "tenantbroker_nonce": "n"})
			w.write(map[string]any{"value": "by hand"})
		}, "8"},
		"no number of a broker's": {func(w *kindWorld) {
			w.write(map[string]any{"value": left, "tenantbroker_version": "18446744073709551615"})
		}, "2"},
		"nothing": {func(*kindWorld) {}, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.found(w)
			w.declareKV(nil)
			w.ask(false)
			w.until("drain", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Step == secrets.Drain })
			if got := w.read().Data["tenantbroker_version"]; got != c.want {
				t.Errorf("consumers are given version %v, not %s", got, c.want)
			}
		})
	}
	t.Run("the store was restored", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.declareKV(nil)
		w.rotate(1)
		w.write(map[string]any{"value": left, "tenantbroker_version": "7", "tenantbroker_nonce": "n"})
		w.ask(true)
		w.until("drain", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Step == secrets.Drain })
		if got := w.read().Data["tenantbroker_version"]; got != "8" {
			t.Fatalf("consumers are given version %v, not 8", got)
		}
		w.ack(8)
		w.until("rotated", rotated(8))
	})
}
