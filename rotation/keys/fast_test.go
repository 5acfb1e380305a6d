package keys

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Times of seconds are for those who say so, and have bounds too.
func TestOnlyInsecureFastAllowsTimesOfSeconds(t *testing.T) {
	quick := Policy{
		MaxAge: time.Second, Spread: 100 * time.Millisecond, Rotation: 3 * time.Second,
		Deadline: 2 * time.Second, MaxTokenLife: time.Second, Leeway: time.Second, InsecureFast: true,
	}
	rules := mustRules(t, quick)
	if rules.noticed() != 1100*time.Millisecond || rules.rotation != 3*time.Second || rules.leeway != time.Second || rules.step != time.Second {
		t.Errorf("%+v", rules)
	}
	for name, change := range map[string]func(*Policy){
		"not said":                         func(p *Policy) { p.InsecureFast = false },
		"max-age":                          func(p *Policy) { p.MaxAge = time.Second - 1 },
		"spread":                           func(p *Policy) { p.Spread = 100*time.Millisecond - 1 },
		"rotation":                         func(p *Policy) { p.Rotation = 2*time.Second - 1 },
		"notice over by the next rotation": func(p *Policy) { p.Rotation = 2200*time.Millisecond - 1 },
		"leeway":                           func(p *Policy) { p.Leeway = time.Second - 1 },
		"token life":                       func(p *Policy) { p.MaxTokenLife = credential.MaxTicketLifetime + 1 },
	} {
		p := quick
		change(&p)
		if _, err := p.Rules(); !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
