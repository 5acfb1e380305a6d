package api

import (
	"bytes"
	"encoding/json"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// mergePatch applies a JSON merge patch (RFC 7396) to an object and returns
// the outcome. Unlike the RFC it takes objects only, at the top: a patch that
// replaces the whole is not a change that anyone means. Members of the patch
// that are null are absent from the outcome, at any depth.
func mergePatch(target, patch []byte) ([]byte, error) {
	changes, err := credential.ParseObject(patch)
	if err != nil {
		return nil, refuse(wire.CodeMalformed, "", "the patch is not a strict JSON object")
	}
	current, err := credential.ParseObject(target)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := mergeObjects(&b, current, changes); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// mergeObjects writes current with changes merged in. The depth is bounded by
// credential.ParseObject, which both have passed.
func mergeObjects(b *bytes.Buffer, current, changes []credential.JSONMember) error {
	b.WriteByte('{')
	for _, m := range current {
		change, changed := member(changes, m.Name)
		switch {
		case !changed:
			writeMember(b, m.Name)
			b.Write(m.Value)
		case change.Kind == credential.JSONNull:
		default:
			if err := mergeValue(b, m, change); err != nil {
				return err
			}
		}
	}
	for _, change := range changes {
		if _, known := member(current, change.Name); known || change.Kind == credential.JSONNull {
			continue
		}
		if err := mergeValue(b, credential.JSONMember{}, change); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

// mergeValue writes one member: a change that is an object is merged into what
// was there, or into nothing; any other replaces it.
func mergeValue(b *bytes.Buffer, was, change credential.JSONMember) error {
	writeMember(b, change.Name)
	if change.Kind != credential.JSONObject {
		b.Write(change.Value)
		return nil
	}
	var inner []credential.JSONMember
	var err error
	if was.Kind == credential.JSONObject {
		if inner, err = credential.ParseObject(was.Value); err != nil {
			return err
		}
	}
	changes, err := credential.ParseObject(change.Value)
	if err != nil {
		return err
	}
	return mergeObjects(b, inner, changes)
}

func member(members []credential.JSONMember, name []byte) (credential.JSONMember, bool) {
	for _, m := range members {
		if bytes.Equal(m.Name, name) {
			return m, true
		}
	}
	return credential.JSONMember{}, false
}

func writeMember(b *bytes.Buffer, name []byte) {
	if b.Bytes()[b.Len()-1] != '{' {
		b.WriteByte(',')
	}
	quoted, _ := json.Marshal(string(name)) // a string always marshals
	b.Write(quoted)
	b.WriteByte(':')
}
