package probe

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Check says what is wrong with an object and its attempts.
func (o *Object) Check() error {
	if (o.Create == nil) == (o.Find == nil) {
		return errors.New("exactly one of create and find")
	}
	origin := o.origin()
	if err := origin.check([]string{"marker", "witness", "tenant"}); err != nil {
		return fmt.Errorf("its origin: %w", err)
	}
	if origin.As != "" {
		return errors.New("its origin is made as both: no as")
	}
	if origin.ID != "" && !isPointer(origin.ID) {
		return fmt.Errorf("id %q is not a JSON pointer such as /id", origin.ID)
	}
	if origin.ID == "" && o.Find != nil {
		return errors.New("find needs id, a JSON pointer into the answer")
	}
	if err := checkRequest(o.Read, []string{"id", "tenant"}); err != nil || !strings.Contains(o.Read, "{id}") {
		return errors.Join(errors.New("read is not a request with {id}"), err)
	}
	if o.Delete != "" {
		if err := checkRequest(o.Delete, []string{"id", "tenant"}); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
	}
	if o.Create != nil && !carries(o.Create.Step, "witness") && len(o.Reveals) == 0 && !o.Shared {
		return errors.New("nothing would tell A's object: put {witness} into what is created, or name reveals")
	}
	if o.Find != nil && len(o.Reveals) == 0 && !o.Shared {
		return errors.New("find needs reveals: where in the answer to read is what nobody else has")
	}
	if o.Plant != nil && o.Create == nil {
		return errors.New("plant goes with create")
	}
	for _, p := range o.Reveals {
		if !isPointer(p) || p == "" {
			return fmt.Errorf("reveals: %q is not a JSON pointer such as /email", p)
		}
	}
	if len(o.Try) == 0 || len(o.Try) > MaxAttempts {
		return fmt.Errorf("1 to %d attempts, not %d", MaxAttempts, len(o.Try))
	}
	var seen []string
	for i := range o.Try {
		t := &o.Try[i]
		if !nameGrammar.MatchString(t.Name) || slices.Contains(seen, t.Name) {
			return fmt.Errorf("try[%d]: %q is not a name of its own of small letters, digits, _ and -", i, t.Name)
		}
		seen = append(seen, t.Name)
		if err := t.Check(); err != nil {
			return fmt.Errorf("try %s: %w", t.Name, err)
		}
		if t.plantsBy() && o.Shared {
			return fmt.Errorf("try %s: seen proves nothing of what everybody may read", t.Name)
		}
		if t.MayDamage() && o.Find != nil && !o.MayDamage {
			return fmt.Errorf("try %s could change an object that was there before: may_damage: true if it may, changes: false on the attempt if it does not", t.Name)
		}
	}
	return nil
}

func (o *Object) origin() *Origin {
	if o.Create != nil {
		return o.Create
	}
	return o.Find
}

// Check goes through an attempt's requests in the order in which they are sent,
// so that each name was saved before it is used.
func (t *Attempt) Check() error {
	names := []string{"id", "own", "marker", "tenant_a", "tenant_b", "other_marker"}
	if err := t.checkSeen(&names); err != nil {
		return err
	}
	if t.Settle < 0 || t.Settle > time.Minute {
		return errors.New("settle is at most 1m")
	}
	if len(t.Before)+len(t.Then)+len(t.Cleanup)+len(t.Seen) > MaxSteps {
		return fmt.Errorf("over %d steps", MaxSteps)
	}
	for part, steps := range [][]Step{t.Before, {t.Step}, t.Then, t.Cleanup} {
		for _, s := range steps {
			actor := s.As != ""
			if (part == 0) != actor || actor && s.As != "a" && s.As != "b" {
				return errors.New("as is a or b, in before and nowhere else: the attempt itself is made as everybody")
			}
			if err := s.check(names); err != nil {
				return err
			}
			for name := range s.Save {
				names = append(names, name)
			}
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "planted" })
	for _, request := range t.Seen {
		if err := checkRequest(request, names); err != nil {
			return fmt.Errorf("seen: %w", err)
		}
	}
	return nil
}

// checkSeen takes places where A would see {planted}, where that is sent.
func (t *Attempt) checkSeen(names *[]string) error {
	if !t.plantsBy() {
		return nil
	}
	*names = append(*names, "planted")
	switch {
	case t.changes():
		return errors.New("seen is for what makes something, and not for what changes the object (changes: false)")
	case !slices.ContainsFunc(append([]Step{t.Step}, t.Then...), func(s Step) bool { return carries(s, "planted") && !safe(s) }):
		return errors.New("seen: nothing that is made holds {planted}")
	case slices.ContainsFunc(t.Seen, func(request string) bool { return !safe(Step{Request: request}) }):
		return errors.New("seen: a request that only reads (GET, HEAD or QUERY)")
	}
	return nil
}

func (s *Step) check(names []string) error {
	if err := checkRequest(s.Request, names); err != nil {
		return err
	}
	if len(s.Headers)+len(s.Save)+len(s.Until) > MaxSteps {
		return fmt.Errorf("%s: over %d headers, names to save and values to wait for", s.Request, MaxSteps)
	}
	for name, value := range s.Headers {
		if err := checkHeader(name, value); err != nil {
			return err
		}
		if err := checkNames(value, names); err != nil {
			return err
		}
	}
	for name, pointer := range s.Save {
		if !nameGrammar.MatchString(name) || slices.Contains(ownNames, name) {
			return fmt.Errorf("save: %q is not a name that is free", name)
		}
		if !isPointer(pointer) {
			return fmt.Errorf("save %s: %q is not a JSON pointer", name, pointer)
		}
	}
	for pointer := range s.Until {
		if !isPointer(pointer) {
			return fmt.Errorf("until: %q is not a JSON pointer", pointer)
		}
	}
	if s.Wait < 0 || s.Wait > time.Minute {
		return errors.New("wait is at most 1m")
	}
	return checkBody(s.Body, names, 0)
}
