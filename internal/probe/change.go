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
		if err := t.intact(ctx); err != nil {
			return err
		}
		e := t.evidence()
		e.shared, e.anonymous = false, who == nobody // to read it is one thing
		if t.object.Shared {
			e.witnesses = nil
		}
		var err error
		if who == asB {
			if e.nonsense, e.ids, err = t.nonsense(ctx, d); err != nil {
				return err
			}
		}
		if e.got, err = t.chain(ctx, who, t.target, d); err != nil {
			return err
		}
		if err := t.nonsenseAgain(ctx, d, &e); err != nil {
			return err
		}
		c := t.judged(d.name, e)
		became, err := t.run.damage(ctx, t.target)
		switch {
		case err != nil:
			c.Findings = append(c.Findings, Finding{Inconclusive, "control", plain(err)})
		case became != "":
			t.target.damaged = true
			c.Findings = append([]Finding{{Leak, "changed", "A's " + t.object.Name + ": " + became}}, c.Findings...)
		}
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

// works makes the attempt as A, and says why it is none.
func (t *trial) works(ctx context.Context) (doubt string, err error) {
	if err := t.intact(ctx); err != nil {
		return "", err
	}
	all, err := t.chain(ctx, asA, t.target, disguise{})
	if err != nil {
		return "", err
	}
	if last := all[len(all)-1]; !last.ok() {
		return fmt.Sprintf("A itself gets status %d here", last.status), nil
	}
	became, err := t.run.damage(ctx, t.target)
	if err != nil {
		return "", err
	}
	if became == "" {
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
