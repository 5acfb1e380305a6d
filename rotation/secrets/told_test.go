package secrets

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const foreign = "secret/globex in ns1"

// fill puts the foreign text into every text that v leads to.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		fill(v.Elem())
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf(foreign))
	case reflect.String:
		v.SetString(foreign)
	}
}

// where lists the fields that hold the foreign text.
func where(v reflect.Value, path string) (found []string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return where(v.Elem(), path)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				found = append(found, where(v.Field(i), path+"."+f.Name)...)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			found = append(found, where(v.Index(i), path)...)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			found = append(found, where(v.MapIndex(k), path)...)
		}
	case reflect.String:
		if strings.Contains(v.String(), foreign) {
			return []string{path}
		}
	}
	return found
}

// Of every text in a status, those of a tenant's operators see what was
// declared, what operators said, and names of steps and causes: nothing that
// came from Vault, a database or a webhook. A new field is hidden, or named here.
func TestStatus_TextsOfOthersAreNotATenants(t *testing.T) {
	var full Status
	fill(reflect.ValueOf(&full).Elem())
	bound := registry.By{Tenant: credential.MustTenant("acme")}
	allowed := []string{
		// As declared, within the tenant.
		".Secret.ID", ".Secret.Kind", ".Secret.Description", ".Secret.Schedule.Cron", ".Secret.Schedule.Zone",
		".Secret.Schedule.Window.Days", ".Secret.Schedule.Window.From", ".Secret.Schedule.Window.To", ".Secret.Pair", ".Secret.CreatedBy",
		".Secret.Resources", // what the spec says
		// What operators have said, and ids.
		".Attempt.Nonce", ".Attempt.Cause.Reason", ".Attempt.Cause.After", ".Attempt.New.Nonce", ".Attempt.Abort",
		".Asked.Reason", ".Asked.After", ".Last.Nonce", ".Last.Cause.Reason", ".Last.Cause.After",
		// Of a fixed set each.
		".Attempt.Steps", ".Attempt.Step", ".Attempt.Journal.Step", ".Attempt.Journal.What", ".Last.Journal.Step", ".Last.Journal.What",
		".Waiting.Action", ".Waiting.For", ".Waiting.Absent.Why", ".Uptake.Uptake.How",
	}
	got := where(reflect.ValueOf(full.toldTo(bound)), "")
	for _, path := range got {
		if !slices.Contains(allowed, path) {
			t.Errorf("a tenant's operator reads %s", path)
		}
	}
	all := where(reflect.ValueOf(full.toldTo(root)), "")
	for _, path := range []string{".Problem", ".Drift", ".Attempt.Error", ".Attempt.Failed", ".Attempt.Journal.Note", ".Last.Failed", ".Last.Journal.Note"} {
		if !slices.Contains(all, path) {
			t.Errorf("an operator of the whole broker doesn't read %s", path)
		}
	}
}

func TestStatus_JournalOfATenant(t *testing.T) {
	var journal []Entry
	for _, what := range []What{Intended, Done, FoundDone, FoundNot, Elsewhere, Erred, GaveUp, Forced, "of a later version"} {
		journal = append(journal, Entry{What: what, Note: foreign})
	}
	journal = append(journal, Entry{What: GaveUp, Note: abortedBy + "the vendor is down"}, Entry{What: Done})
	var notes []string
	for _, e := range toldJournal(journal) {
		if strings.Contains(e.Note, foreign) != (e.What == Forced) {
			t.Errorf("%s: %s", e.What, e.Note)
		}
		notes = append(notes, e.Note)
	}
	if n := len(notes); notes[n-2] != abortedBy+"the vendor is down" || notes[n-1] != "" {
		t.Errorf("%q", notes)
	}
	if journal[4].Note != foreign {
		t.Error("the journal itself was changed")
	}
}

// The tenant's chain of the audit log is the tenant's to read; the broker's own isn't.
func TestRecords_TextsOfOthersAreNotATenants(t *testing.T) {
	of := record{secret: &Secret{Tenant: credential.MustTenant("acme")}}
	shared := record{secret: &Secret{Shared: true}}
	if got := of.recorded(foreign, toldDrift); got != toldDrift {
		t.Error(got)
	}
	if got := of.recorded("", toldDrift); got != "" {
		t.Error(got)
	}
	if got := shared.recorded(foreign, toldDrift); got != foreign {
		t.Error(got)
	}
	held := record{secret: of.secret, state: State{Drift: foreign}}
	if got := held.heldBack(registry.By{Tenant: credential.MustTenant("acme")}); strings.Contains(got, foreign) || got == "" {
		t.Error(got)
	}
	if got := held.heldBack(root); !strings.Contains(got, foreign) {
		t.Error(fmt.Sprint(got))
	}
}
