package probe

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tenantbroker/tenantbroker/internal/unknown"
)

// instance is an object that somebody owns.
type instance struct {
	object    *Object
	owner     actor
	id        any // string or json.Number
	marker    string
	given     []witness         // what was put into it, and its id
	witnesses []witness         // those, and what its owner read in it
	seen      map[string]string // what it was when its owner read it, without what varies
	damaged   bool              // it is no longer what it was
	born      time.Time         // when it was there
}

// errNoObject means: there is nothing to try with.
var errNoObject = errors.New("no object")

// have creates or finds an object as its owner.
func (r *run) have(ctx context.Context, o *Object, who actor) (*instance, error) {
	i := &instance{object: o, owner: who, marker: randomWord()}
	secret := randomWord()
	origin := o.origin()
	answer, err := r.sender.send(ctx, who, origin.Step, values{"marker": i.marker, "witness": secret, "tenant": r.tenant(who)}, nil, nil)
	if err != nil {
		if o.Create != nil && arrived(err) {
			r.left("%s of %s: %s: no answer came, so it may be there", o.Name, r.tenant(who), origin.Request)
		}
		return nil, err
	}
	if !answer.ok() {
		return nil, fmt.Errorf("%w: %s as %s: status %d", errNoObject, origin.Request, who, answer.status)
	}
	i.id, err = idOf(answer, origin.ID)
	if err == nil && r.sender.ofToken(fmt.Sprint(i.id)) {
		err = errNoValue // it would be shown
	}
	if err != nil {
		if o.Create != nil {
			r.left("%s of %s: %s: status %d, and no id by which it could be removed", o.Name, r.tenant(who), origin.Request, answer.status)
		}
		return nil, fmt.Errorf("%w: %s as %s: the answer has no id at %q", errNoObject, origin.Request, who, origin.ID)
	}
	if i.born = r.now(); o.Create != nil {
		r.made = append(r.made, i)
	}
	of := strings.ToUpper(string(who)) + "'s " + o.Name
	i.given = append(i.given, newWitness("the id of "+of, fmt.Sprint(i.id)))
	if o.Create != nil {
		i.given = append(i.given, wordsIn(origin.Step, i.marker, secret, of)...)
	}
	return i, r.know(ctx, i)
}

// wordsIn are the words that a step puts into what it makes.
func wordsIn(s Step, marker, secret, of string) []witness {
	var all []witness
	if carries(s, "witness") {
		all = append(all, newWitness("the witness in "+of, secret))
	}
	if carries(s, "marker") {
		all = append(all, newWitness("the marker in "+of, marker))
	}
	return all
}

// know reads an object as its owner, twice: what differs then differs always. Where
// that fails, what was known before stays.
func (r *run) know(ctx context.Context, i *instance) error {
	first, err := r.read(ctx, i)
	if err != nil {
		return err
	}
	second, err := r.read(ctx, i)
	if err != nil {
		return err
	}
	if !first.ok() || !second.ok() {
		return fmt.Errorf("%w: %s as %s: status %d", errNoObject, i.object.Read, i.owner, first.status)
	}
	witnesses := slices.Clone(i.given)
	document := parseJSON(first.body)
	for _, pointer := range i.object.Reveals {
		value, err := at(document, pointer)
		if err != nil {
			return fmt.Errorf("%w: %s as %s: the answer has no text or number at %s", errNoObject, i.object.Read, i.owner, pointer)
		}
		witnesses = append(witnesses, newWitness("the value at "+pointer+" of "+strings.ToUpper(string(i.owner))+"'s "+i.object.Name, fmt.Sprint(value)))
	}
	i.seen, i.witnesses = stable(first, second), witnesses
	return nil
}

func (r *run) read(ctx context.Context, i *instance) (*answer, error) {
	return r.readAs(ctx, i.owner, i.object, i.id)
}

// readAs reads what is under an id, past caches.
func (r *run) readAs(ctx context.Context, who actor, o *Object, id any) (*answer, error) {
	return r.sender.send(ctx, who, Step{Request: o.Read}, values{"id": id, "tenant": r.tenant(who)}, map[string]string{"Cache-Control": "no-cache"}, nil)
}

// stable returns the values that two answers have in common.
func stable(a, b *answer) map[string]string {
	one, two := contents(a), contents(b)
	for path, value := range one {
		if two[path] != value {
			delete(one, path)
		}
	}
	return one
}

func contents(a *answer) map[string]string {
	all := make(map[string]string)
	if document := parseJSON(a.body); document != nil {
		leaves(document, "", all)
	} else {
		all[""] = string(a.body)
	}
	return all
}

// maxID bounds an id, in bytes as it is sent in a path.
const maxID = 256

// idOf reads an id where the description says it is. What leads elsewhere as a
// segment of a path, what is no line of text, and what is too long is none.
func idOf(a *answer, pointer string) (any, error) {
	id, err := rawID(a, pointer)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprint(id)
	control := strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f || c == utf8.RuneError })
	if len(url.PathEscape(text)) > maxID || text == "." || text == ".." || control {
		return nil, errNoValue
	}
	return id, nil
}

func rawID(a *answer, pointer string) (any, error) {
	if pointer != "" {
		return at(parseJSON(a.body), pointer)
	}
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || u.Path == "" {
		return nil, errNoValue
	}
	id := path.Base(u.Path)
	if id == "/" {
		return nil, errNoValue
	}
	return id, nil
}

// randomWord is a word that is nowhere else: letters and digits, so that an
// index takes it for one.
func randomWord() string { return "probe" + strings.ToLower(rand.Text()[:20]) }

// unknownID is an id of the same shape, and kind of JSON value, that nobody has.
func unknownID(id any) any {
	text := unknown.ID(fmt.Sprint(id))
	if _, number := id.(json.Number); number {
		return json.Number(text)
	}
	return text
}
