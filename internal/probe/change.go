package probe

import (
	"context"
	"fmt"
)

func text(id any) string { return fmt.Sprint(id) }

// change makes an attempt that would change A's object, and looks after each
// whether it did. A comes last: that it can shows that the attempt is one.
func (t *trial) change(ctx context.Context) error {
	var cases []Case
	keep := func(c Case) { cases = append(cases, c) }
	defer func() {
		for _, c := range cases {
			t.run.add(c)
		}
	}()
	for _, d := range append(t.disguises(), disguise{name: "no token"}) {
		who := asB
		if d.name == "no token" {
			who = nobody
		}
		found, e, err := t.changeAs(ctx, who, d)
		if err != nil {
			return err
		}
		c := t.judged(d.name, e)
		c.Findings = append(found, c.Findings...)
		keep(c)
	}
	if !t.attempt.controlled() {
		return nil
	}
	doubt, err := t.works(ctx)
	if err != nil {
		doubt = plain(err)
	}
	for i := range cases {
		if doubt != "" && worst(cases[i].Findings) == Clean {
			cases[i].Findings = []Finding{{Inconclusive, "control", doubt}}
		}
	}
	return nil
}

// changeAs makes the attempt as somebody else, for an id that nobody has and for
// A's, and says what became of A's object.
func (t *trial) changeAs(ctx context.Context, who actor, d disguise) ([]Finding, evidence, error) {
	e := t.evidence()
	e.shared, e.anonymous = false, who == nobody // to read it is one thing
	var found []Finding
	if who == asB && t.compares() {
		of, err := t.around(ctx, func() error {
			none, ids, err := t.nonsense(ctx, asB, d)
			if e.nonsense == nil {
				e.nonsense, e.ids = none, ids
			}
			return err
		})
		if err != nil {
			return nil, e, err
		}
		found = of
	}
	of, err := t.around(ctx, func() error {
		got, err := t.chain(ctx, who, t.target, d)
		if e.got == nil {
			e.got, e.witnesses = got, t.target.witnesses
		}
		return err
	})
	if err != nil {
		return nil, e, err
	}
	if t.object.Shared {
		e.witnesses = nil
	}
	return append(found, of...), e, t.nonsenseAgain(ctx, d, &e)
}

// works makes the attempt as A, and says why it is none.
func (t *trial) works(ctx context.Context) (doubt string, err error) {
	if _, err := t.steady(ctx); err != nil {
		return "", err
	}
	all, err := t.chain(ctx, asA, t.target, disguise{})
	if err != nil {
		return "", err
	}
	if last := all[len(all)-1]; !last.ok() {
		return fmt.Sprintf("A itself gets status %d here", last.status), nil
	}
	became, err := t.run.differs(ctx, t.target)
	if err != nil {
		return "", err
	}
	if !became.any() {
		return "A's own attempt changes nothing either", nil
	}
	t.target.damaged = true
	return "", nil
}

// intact sees to it that A has an object that is as it was.
func (t *trial) intact(ctx context.Context) error {
	if !t.target.damaged {
		return nil
	}
	again, err := t.run.have(ctx, t.object, asA)
	if err == nil {
		t.target = again
	}
	return err
}
