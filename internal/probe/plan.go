package probe

// Planned is a request that a run would send.
type Planned struct {
	Object  string `json:"object"`
	Attempt string `json:"attempt"` // or what else it is for
	As      string `json:"as"`
	Request string `json:"request"`
}

// Plan says what a run would send, in its order, without sending anything.
// Requests that a run repeats, to wait or because an object was damaged, are in
// it once; those for an id that nobody has also where the ids turn out to be such
// that a run does not send them.
func (d *Description) Plan() []Planned {
	var all []Planned
	for i := range d.Objects {
		p := planner{d: d, object: &d.Objects[i]}
		p.origin("b")
		p.origin("a")
		for n := range p.object.Try {
			p.attempt(&p.object.Try[n])
		}
		p.plant()
		p.add("afterwards", "a", p.object.Read)
		if p.object.Create != nil && p.object.Delete != "" {
			p.add("clean up", "a", p.object.Delete)
			p.add("clean up", "b", p.object.Delete)
		}
		all = append(all, p.all...)
	}
	return all
}

type planner struct {
	d      *Description
	object *Object
	all    []Planned
}

func (p *planner) add(attempt, as, request string) {
	p.all = append(p.all, Planned{p.object.Name, attempt, as, request})
}

func (p *planner) origin(who string) {
	what := "create"
	if p.object.Find != nil {
		what = "find"
	}
	p.add(what, who, p.object.origin().Request)
	p.add("look before", who, p.object.Read)
}

func (p *planner) chain(t *Attempt, as string) {
	p.add(t.Name, as, t.Request)
	for _, s := range t.Then {
		p.add(t.Name+", then", as, s.Request)
	}
	for _, request := range t.Seen {
		p.add(t.Name+", look after", "a", request)
	}
	p.cleanup(t, as)
}

func (p *planner) cleanup(t *Attempt, as string) {
	for _, s := range t.Cleanup {
		if as == "no token" { // whose it is can't be known
			p.add(t.Name+", clean up", "a", s.Request)
			as = "b"
		}
		p.add(t.Name+", clean up", as, s.Request)
	}
}

func (p *planner) attempt(t *Attempt) {
	for _, s := range t.Before {
		p.add(t.Name+", before", s.As, s.Request)
	}
	if len(t.Before) > 0 {
		p.add("look before", "a", p.object.Read)
	}
	trial := &trial{run: &run{d: p.d}, object: p.object, attempt: t}
	looks := !t.changes()
	if looks && t.controlled() {
		p.chain(t, "a")
		if !t.safe() {
			p.add(t.Name+", look around", "a", p.object.Read)
		}
		if trial.byID() {
			p.chain(t, "b, its own")
		}
	}
	for _, d := range trial.disguises() {
		if looks && p.object.Shared && d.name != "b" {
			continue
		}
		if trial.alone() && !p.object.Shared {
			p.add(t.Name, d.name+", an id that nobody has", t.Request)
			p.cleanup(t, d.name)
		}
		p.chain(t, d.name)
		if !looks || !t.safe() {
			p.add(t.Name+", look after", "a", p.object.Read)
		}
	}
	if looks && t.controlled() && !p.object.Shared {
		p.chain(t, "b, validator of a")
	}
	p.chain(t, "no token")
	if looks && trial.alone() && !p.object.Shared {
		p.add(t.Name, "no token, an id that nobody has", t.Request)
		p.cleanup(t, "no token")
	}
	if !looks {
		p.add(t.Name+", look after", "a", p.object.Read)
		if t.controlled() {
			p.chain(t, "a")
			p.add(t.Name+", look after", "a", p.object.Read)
		}
	}
}

func (p *planner) plant() {
	all := p.d.plantings(p.object)
	if len(all) == 0 {
		return
	}
	for _, of := range all {
		p.add(PlantAttempt, of.name, of.step.Request)
	}
	p.origin("b")
	p.origin("a")
	for _, l := range p.object.looks() {
		p.add(PlantAttempt+", look after", "a", l.step.Request)
		p.add(PlantAttempt+", look after", "b", l.step.Request)
	}
	if p.object.Delete != "" {
		p.add(PlantAttempt+", clean up", "b", p.object.Delete)
		p.add(PlantAttempt+", clean up", "a", p.object.Delete)
	}
}
