package audit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// ErrLine means that it is not a line that AppendLine writes. Another spelling of a good
// record (other order, spaces, escapes) is refused too.
var ErrLine = errors.New("audit: not a canonical record line")

// Parse reads a line that AppendLine wrote and returns the record with the
// chain that it claims to belong to. Whether it does is for Verify to say.
func Parse(line []byte) (Record, Chain, error) {
	r, writer, err := decode(line)
	if err != nil {
		return Record{}, Chain{}, fmt.Errorf("%w: %w", ErrLine, err)
	}
	// The encoder is the grammar: what it would write differently isn't its line.
	var room [1024]byte
	if !bytes.Equal(AppendLine(room[:0], &r, writer), line) {
		return Record{}, Chain{}, fmt.Errorf("%w: spelled differently", ErrLine)
	}
	return r, ChainFor(r.Tenant, writer), nil
}

func decode(line []byte) (r Record, writer string, err error) {
	if len(line) > MaxLineLength {
		return r, "", fmt.Errorf("over %d bytes", MaxLineLength)
	}
	members, err := credential.ParseObject(line)
	if err != nil {
		return r, "", err
	}
	var hasTime bool
	for _, m := range members {
		switch string(m.Name) {
		case "seq":
			r.Seq, err = number(m)
		case "writer":
			if writer, err = m.JSONText(); err == nil {
				err = CheckWriter(writer)
			}
		case "tenant":
			var id string
			if id, err = m.JSONText(); err == nil {
				r.Tenant, err = credential.ParseTenant(id)
			}
		case "time":
			hasTime = true
			r.Time, err = instant(m)
		case "decision":
			var d string
			d, err = m.JSONText()
			r.Decision = Decision(d)
		case "resource":
			r.Resource, err = resource(m)
		case "expires":
			r.Expires, err = instant(m)
		case "count":
			r.Count, err = number(m)
		default:
			field := r.text(string(m.Name))
			if field == nil {
				return r, "", fmt.Errorf("unknown member %q", m.Name)
			}
			*field, err = m.JSONText()
		}
		if err != nil {
			return r, "", fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	if prev, err := hex.DecodeString(r.Prev); err != nil || len(prev) != 32 || strings.ToLower(r.Prev) != r.Prev {
		return r, "", errors.New("prev: not 64 lower-case hex digits")
	}
	if r.Seq == 0 || writer == "" || !hasTime {
		return r, "", errors.New("seq, writer or time is missing")
	}
	return r, writer, nil
}

// text returns the field for a member that holds plain text, or nil.
func (r *Record) text(name string) *string {
	switch name {
	case "type":
		return &r.Type
	case "reason":
		return &r.Reason
	case "subject":
		return &r.Subject
	case "actor":
		return &r.Actor
	case "client_id":
		return &r.ClientID
	case "audience":
		return &r.Audience
	case "scope":
		return &r.Scope
	case "jti":
		return &r.JTI
	case "txn":
		return &r.Txn
	case "kid":
		return &r.KeyID
	case "grant":
		return &r.Grant
	case "ip":
		return &r.IP
	case "request_id":
		return &r.RequestID
	case "prev":
		return &r.Prev
	}
	return nil
}

func number(m credential.JSONMember) (uint64, error) {
	if m.Kind != credential.JSONNumber {
		return 0, errors.New("not a number")
	}
	return strconv.ParseUint(string(m.Value), 10, 64)
}

func instant(m credential.JSONMember) (time.Time, error) {
	s, err := m.JSONText()
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(timeLayout, s)
}

func resource(m credential.JSONMember) (Resource, error) {
	if m.Kind != credential.JSONObject {
		return Resource{}, errors.New("not an object")
	}
	members, err := credential.ParseObject(m.Value)
	if err != nil {
		return Resource{}, err
	}
	var r Resource
	for _, m := range members {
		text, err := m.JSONText()
		if err != nil {
			return Resource{}, err
		}
		switch string(m.Name) {
		case "type":
			r.Type = text
		case "id":
			r.ID = text
		default:
			return Resource{}, fmt.Errorf("unknown member %q", m.Name)
		}
	}
	return r, nil
}

// ChainOf reads only as much of a line that AppendLine wrote as it takes to
// tell its chain.
func ChainOf(line []byte) (Chain, error) {
	_, rest, found := bytes.Cut(line, []byte(`,"writer":"`))
	if !found {
		return Chain{}, ErrLine
	}
	writer, rest, found := bytes.Cut(rest, []byte{'"'})
	if !found {
		return Chain{}, ErrLine
	}
	var tenant credential.Tenant
	if rest, found = bytes.CutPrefix(rest, []byte(`,"tenant":"`)); found {
		id, _, _ := bytes.Cut(rest, []byte{'"'})
		var err error
		if tenant, err = credential.ParseTenant(string(id)); err != nil {
			return Chain{}, fmt.Errorf("%w: %w", ErrLine, err)
		}
	}
	return ChainFor(tenant, string(writer)), nil
}
