package kinds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Bounds of a webhook's answer.
const (
	maxAnswer = 4 << 10 // bytes
	maxNote   = 200     // characters of it that are shown
	maxURL    = 1024
)

// Doer sends a request to addresses that may be reached.
type Doer interface {
	CheckURL(*url.URL) error // https, but for development
	Do(*http.Request) (*http.Response, error)
	Close()
}

// Outbound returns what reaches a webhook: ranges are the networks beyond the
// public internet in which it may be, bundle its authorities in PEM.
type Outbound func(ranges []string, bundle string) (Doer, error)

// Tokens issues the broker's own short-lived token for a webhook, under a grant of
// the secret's owner, if whoever declared the secret may lend that still; it is
// recorded like every other.
type Tokens func(ctx context.Context, word registry.Rotated, owner credential.AccountID, audience credential.Audience, tenant credential.Tenant) (credential.Secret, error)

// Webhook rotates whatever answers at a URL: each step is a call. The value
// never passes through the broker.
type Webhook struct {
	outbound Outbound
	tokens   Tokens
}

// NewWebhook returns the kind.
func NewWebhook(outbound Outbound, tokens Tokens) *Webhook { return &Webhook{outbound, tokens} }

// WebhookSpec is the spec of the kind webhook.
type WebhookSpec struct {
	URL      string              `json:"url"`      // https
	Audience credential.Audience `json:"audience"` // of the token that each call carries
	// Tenant is that of the token where the secret is of none.
	Tenant   credential.Tenant `json:"tenant,omitzero"`
	CABundle string            `json:"ca_bundle,omitempty"`
	Ranges   []string          `json:"allowed_cidrs,omitempty"`
	Inspect  bool              `json:"inspect,omitempty"` // it can say whether somebody else has changed the value
}

// Call is what is posted to a webhook.
type Call struct {
	Secret     string            `json:"secret"`
	Tenant     credential.Tenant `json:"tenant,omitzero"`
	Action     string            `json:"action"` // do, look, inspect
	Step       secrets.Step      `json:"step,omitempty"`
	Rotation   string            `json:"rotation,omitempty"`    // the nonce
	Version    uint64            `json:"version,omitempty"`     // that the rotation makes
	OldVersion uint64            `json:"old_version,omitempty"` // that it replaces; none: there was none
	GivenUp    bool              `json:"given_up,omitempty"`    // in clean: the new value is to be removed
	Forced     bool              `json:"forced,omitempty"`      // an operator says that what others changed may be overwritten
}

// The actions.
const (
	actionDo      = "do"
	actionLook    = "look"
	actionInspect = "inspect"
)

// Reply is its answer.
type Reply struct {
	// State is "done", "not_done" or "elsewhere" (somebody else has changed it);
	// to do also "failed": certainly not done.
	State string `json:"state"`
	Note  string `json:"note,omitempty"` // for operators; holds no secret
}

// The states of a Reply.
const (
	replyDone      = "done"
	replyNotDone   = "not_done"
	replyFailed    = "failed"
	replyElsewhere = "elsewhere"
)

// Name implements secrets.Kind.
func (*Webhook) Name() string { return "webhook" }

// Backend implements secrets.Kind: each has its own.
func (*Webhook) Backend() string { return "" }

// Steps implements secrets.Kind.
func (*Webhook) Steps() []secrets.Step {
	return []secrets.Step{
		secrets.Stage, secrets.Apply, secrets.Prove, secrets.Promote, secrets.Drain, secrets.Retire, secrets.Clean,
	}
}

// Effects implements secrets.Kind.
func (*Webhook) Effects(step secrets.Step) []string {
	if step == secrets.Drain {
		return nil
	}
	return []string{"call"}
}

// Check implements secrets.Kind.
func (k *Webhook) Check(raw json.RawMessage, about secrets.Subject) (secrets.Checked, error) {
	var spec WebhookSpec
	if err := readSpec(raw, &spec); err != nil {
		return secrets.Checked{}, err
	}
	u, err := url.Parse(spec.URL)
	switch {
	case err != nil, len(spec.URL) > maxURL, u.Host == "", u.User != nil, u.Fragment != "", u.Opaque != "":
		return secrets.Checked{}, registry.Invalid("spec.url", "an https URL without user and fragment, at most %d bytes", maxURL)
	case spec.Audience.IsZero():
		return secrets.Checked{}, registry.Invalid("spec.audience", "is required: whom the token is for")
	case about.Tenant.IsZero() && (spec.Tenant.IsZero() || spec.Tenant.IsSystem()):
		return secrets.Checked{}, registry.Invalid("spec.tenant", "is required where the secret is of no tenant: a token has one")
	case !about.Tenant.IsZero() && !spec.Tenant.IsZero():
		return secrets.Checked{}, registry.Invalid("spec.tenant", "is for secrets of no tenant")
	}
	client, err := k.outbound(spec.Ranges, spec.CABundle)
	if err != nil {
		return secrets.Checked{}, registry.Invalid("spec", "allowed_cidrs or ca_bundle can't be read")
	}
	defer client.Close()
	if client.CheckURL(u) != nil {
		return secrets.Checked{}, registry.Invalid("spec.url", "the scheme must be https")
	}
	// Every call hands out a token of the owner's.
	return secrets.Checked{
		Spec: canonical(spec), Whole: true, Sensitive: true, Lends: []credential.AccountID{about.Owner},
	}, nil
}

// Inspect implements secrets.Kind.
func (k *Webhook) Inspect(ctx context.Context, w *secrets.Work) (secrets.Inspection, error) {
	spec, err := stored[WebhookSpec](w)
	if err != nil || !spec.Inspect || w.Old.Version == 0 {
		return secrets.Inspection{}, err
	}
	reply, err := k.call(ctx, w, spec, actionInspect)
	if err != nil {
		return secrets.Inspection{}, err
	}
	if reply.State == replyFailed {
		return secrets.Inspection{}, errors.New("the webhook can't say whether the value is as it was left: " + reply.note("failed"))
	}
	if reply.State == replyElsewhere {
		return secrets.Inspection{Drift: reply.note("somebody else has changed it"), Found: secrets.Handle{}}, nil
	}
	return secrets.Inspection{}, nil
}

// Prepare implements secrets.Kind.
func (*Webhook) Prepare(context.Context, *secrets.Work) (secrets.Handle, error) { return nil, nil }

// Do implements secrets.Kind.
func (k *Webhook) Do(ctx context.Context, w *secrets.Work) (secrets.Handle, error) {
	spec, err := stored[WebhookSpec](w)
	if err != nil {
		return nil, err
	}
	if w.Step == secrets.Clean && w.GivenUp {
		if given, err := k.hasGiven(ctx, w, spec); given || err != nil {
			return nil, err
		}
	}
	var reply Reply
	err = w.Effect("call", func() (err error) {
		reply, err = k.call(ctx, w, spec, actionDo)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case reply.State == replyDone:
		return nil, nil
	case reply.State == replyFailed, reply.State == replyNotDone:
		return nil, fmt.Errorf("%w: %s", secrets.ErrNotDone, reply.note("the webhook failed"))
	}
	return nil, drift("%s", reply.note("somebody else has changed it"))
}

// hasGiven reports whether consumers have the value of a rotation that was given
// up after all, as where a store was restored. It is not to be removed, and
// without force that is a drift.
func (k *Webhook) hasGiven(ctx context.Context, w *secrets.Work, spec WebhookSpec) (bool, error) {
	promoting := *w
	promoting.Step, promoting.GivenUp = secrets.Promote, false
	reply, err := k.call(ctx, &promoting, spec, actionLook)
	switch {
	case err != nil:
		return false, fmt.Errorf("%w: %w", secrets.ErrNotDone, err)
	case reply.State == replyFailed:
		return false, fmt.Errorf("%w: the webhook can't say whether consumers have the value that is to be removed: %s", secrets.ErrNotDone, reply.note("failed"))
	case reply.State != replyDone:
		return false, nil
	case !w.Forced:
		return false, drift("the webhook says that the promote of the rotation that was given up is done, so that consumers have its value")
	}
	return true, nil
}

// Look implements secrets.Kind.
func (k *Webhook) Look(ctx context.Context, w *secrets.Work) (secrets.Finding, error) {
	spec, err := stored[WebhookSpec](w)
	if err != nil {
		return secrets.Finding{}, err
	}
	reply, err := k.call(ctx, w, spec, actionLook)
	switch {
	case err != nil:
		return secrets.Finding{}, err
	case reply.State == replyDone:
		return secrets.Finding{What: secrets.FoundDone}, nil
	case reply.State == replyElsewhere:
		return secrets.Finding{What: secrets.Elsewhere, Note: reply.note("somebody else has changed it")}, nil
	case reply.State == replyNotDone:
		return secrets.Finding{What: secrets.FoundNot}, nil
	}
	return secrets.Finding{}, errors.New("the webhook can't say what became of the step: " + reply.note("failed"))
}

// call posts one call with a token of its own, and reads the answer strictly.
func (k *Webhook) call(ctx context.Context, w *secrets.Work, spec WebhookSpec, action string) (Reply, error) {
	client, err := k.outbound(spec.Ranges, spec.CABundle)
	if err != nil {
		return Reply{}, err
	}
	defer client.Close()
	tenant := w.Secret.Tenant
	if w.Secret.Shared {
		tenant = spec.Tenant
	}
	token, err := k.tokens(ctx, w.Secret.Rotated(), w.Secret.Owner, spec.Audience, tenant)
	if err != nil {
		return Reply{}, fmt.Errorf("%w: no token for the webhook: %w", secrets.ErrNotDone, err)
	}
	body, err := json.Marshal(Call{ //nolint:gosec // the secret's name
		Secret: w.Secret.ID, Tenant: tenant, Action: action, Step: w.Step, Rotation: w.Nonce,
		Version: w.New.Version, OldVersion: w.Old.Version, GivenUp: w.GivenUp, Forced: w.Forced,
	})
	if err != nil {
		return Reply{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, spec.URL, bytes.NewReader(body))
	if err != nil {
		return Reply{}, err
	}
	r.Header.Set("Authorization", "Bearer "+string(token.Reveal()))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	if action == actionDo {
		r.Header.Set("Idempotency-Key", w.Nonce+"-"+string(w.Step))
	}
	answer, err := client.Do(r)
	if err != nil {
		return Reply{}, fmt.Errorf("the webhook at %s can't be reached", r.URL.Host) // err may repeat the whole URL
	}
	defer answer.Body.Close() //nolint:errcheck // nothing was written
	return readReply(r.URL.Host, answer)
}

// readReply reads an answer: 200, JSON, and a known state.
func readReply(host string, answer *http.Response) (Reply, error) {
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return Reply{}, fmt.Errorf("the webhook at %s broke off", host)
	case answer.StatusCode != http.StatusOK:
		return Reply{}, fmt.Errorf("the webhook at %s answered %d", host, answer.StatusCode)
	case len(body) > maxAnswer:
		return Reply{}, fmt.Errorf("the webhook at %s answered more than %d bytes", host, maxAnswer)
	}
	reply, err := parseReply(body)
	if err != nil {
		return Reply{}, fmt.Errorf("the webhook at %s answered something else than a state", host)
	}
	return reply, nil
}

// parseReply reads an answer's body strictly.
func parseReply(body []byte) (Reply, error) {
	members, err := credential.ParseObject(body)
	if err != nil {
		return Reply{}, err
	}
	var reply Reply
	for _, m := range members {
		text, err := m.JSONText()
		switch {
		case err != nil:
			return Reply{}, err
		case string(m.Name) == "state":
			reply.State = text
		case string(m.Name) == "note":
			reply.Note = text
		default:
			return Reply{}, errors.New("an unknown member")
		}
	}
	switch reply.State {
	case replyDone, replyNotDone, replyFailed, replyElsewhere:
		return reply, nil
	}
	return Reply{}, errors.New("an unknown state")
}

// note is the note for operators, or what is said without one.
func (r Reply) note(otherwise string) string {
	note := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, r.Note)
	if runes := []rune(note); len(runes) > maxNote {
		note = string(runes[:maxNote]) + "…"
	}
	if strings.TrimSpace(note) == "" {
		return otherwise
	}
	return "the webhook says: " + note
}
