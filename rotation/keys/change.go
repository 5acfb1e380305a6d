package keys

import "time"

// Publish adds a key as a standby. The caller has checked that its private
// part can sign.
//
// Errors: ErrRingFull.
func (r Ring) Publish(now time.Time, rules Rules, m Member, cause string) (Ring, []Change, error) {
	if len(r.Published()) >= MaxKeys {
		return r, nil, ErrRingFull
	}
	next := r.clone()
	next.remember(now, rules)
	m = Member{
		ID: m.ID, Algorithm: m.Algorithm, Home: m.Home, Public: m.Public,
		State: Standby, PublishedAt: now, Notice: next.Notice,
	}
	next.Members = append(next.Members, m)
	return next, []Change{{KeyPublished, m.ID, cause}}, nil
}

// Rotate makes the oldest standby key active ahead of the schedule. Without
// emergency its notice must be over and every verifier on the poll must hold
// it. Another standby has to remain: Publish one first.
//
// Errors: a *TooEarlyError; ErrNotReady if there is no usable standby, or no
// second one and this is no emergency.
func (r Ring) Rotate(now time.Time, rules Rules, seen Seen, emergency bool, cause string) (Ring, []Change, error) {
	next := r.clone()
	next.remember(now, rules)
	at := next.oldestStandby(rules.kind(), seen)
	if emergency {
		at = next.emergencyStandby(rules, seen)
	}
	if at < 0 {
		return r, nil, ErrNotReady
	}
	if !emergency {
		if err := next.Members[at].early(now, seen); err != nil {
			return r, nil, err
		}
		if next.standbys(rules.kind(), seen) < 2 {
			return r, nil, ErrNotReady
		}
	}
	return next, next.activate(at, now, rules, cause), nil
}

// early returns why the key may not become active by an operator's wish.
func (m Member) early(now time.Time, seen Seen) error {
	if left := m.noticeLeft(now, seen); left > 0 {
		return &TooEarlyError{KeyID: m.ID, Until: now.Add(left)}
	}
	if missing := seen.Uptake.Missing(m.ID); missing > 0 {
		return &TooEarlyError{KeyID: m.ID, Missing: missing}
	}
	return nil
}

// Revoke withdraws a key at once. If it was the active one, the oldest usable
// standby signs from now on, however young it is: a stolen key must stop. If
// there is none, the ring has no active key and nothing is signed.
//
// Errors: ErrUnknownKey, ErrRevoked.
func (r Ring) Revoke(now time.Time, rules Rules, seen Seen, kid, cause string) (Ring, []Change, error) {
	next := r.clone()
	next.remember(now, rules)
	at := next.index(kid)
	if at < 0 {
		return r, nil, ErrUnknownKey
	}
	m := &next.Members[at]
	if m.State == Revoked {
		return r, nil, ErrRevoked
	}
	was := m.State
	m.State, m.StoppedAt = Revoked, now
	m.KeepUntil = later(m.keepUntil(now, rules), now.Add(revokedKept))
	changes := []Change{{KeyRevoked, kid, cause}}
	if was != Active {
		return next, changes, nil
	}
	if to := next.emergencyStandby(rules, seen); to >= 0 {
		changes = append(changes, next.activate(to, now, rules, "the active key was revoked")...)
	}
	return next, changes, nil
}
