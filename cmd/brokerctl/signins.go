package main

import (
	"iter"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

const signInsText = `

Every command signs in anew, and each sign-in is on record. A table leaves these
out and says how many, unless --all or a filter by type, account, token, request
or grant asks for them. -o json and yaml leave nothing out.`

func allFlag(c *cobra.Command, all *bool) {
	c.Flags().BoolVar(all, "all", false, "show the sign-ins of operators too")
}

// signIns leaves the operators' sign-ins out of what a person is shown.
type signIns struct {
	audience string // of the tokens that operators sign in for; "": leave out nothing
	hidden   int
}

// signIns decides whether a search with this filter asks for sign-ins.
func (a *app) signIns(f client.AuditFilter, all bool) (*signIns, error) {
	asked := f.Type + f.Subject + f.Actor + f.ClientID + f.Audience + f.JTI + f.Txn + f.KeyID + f.Grant + f.RequestID
	if all || a.output != outputTable || asked != "" {
		return new(signIns), nil
	}
	_, p, err := a.profile()
	if err != nil {
		return nil, err
	}
	issuer, err := credential.ParseIssuerURL(p.Issuer)
	if err != nil {
		return nil, usageError{err}
	}
	return &signIns{audience: issuer.Own("admin").String()}, nil
}

// page is how many records to ask for at once where limit are wanted: what is
// left out must not make a page per record.
func (s *signIns) page(limit int) int {
	limit = min(limit, wire.MaxLimit)
	if s.audience != "" {
		limit = min(max(4*limit, 100), wire.MaxLimit)
	}
	return limit
}

func (s *signIns) hides(r wire.AuditRecord) bool {
	hides := s.audience != "" && r.Type == "token.issued" && r.Audience == s.audience
	if hides {
		s.hidden++
	}
	return hides
}

// without returns the first records of a page that are shown, at most limit.
func (s *signIns) without(page []wire.AuditRecord, limit int) []wire.AuditRecord {
	var shown []wire.AuditRecord
	for _, r := range page {
		if len(shown) == limit {
			break
		}
		if !s.hides(r) {
			shown = append(shown, r)
		}
	}
	return shown
}

func (s *signIns) leftOut(found iter.Seq2[wire.AuditRecord, error]) iter.Seq2[wire.AuditRecord, error] {
	return func(yield func(wire.AuditRecord, error) bool) {
		for r, err := range found {
			if err == nil && s.hides(r) {
				continue
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// note tells the person how many were left out since it last did.
func (s *signIns) note(a *app) {
	switch s.hidden {
	case 0:
		return
	case 1:
		a.note("1 sign-in of an operator hidden; --all shows it")
	default:
		a.note("%d sign-ins of operators hidden; --all shows them", s.hidden)
	}
	s.hidden = 0
}
