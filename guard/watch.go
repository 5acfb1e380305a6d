package guard

import "context"

type watchKey struct{}

// Watch returns a context in which each decision is also told to f, after it was
// logged: for who has to know what happened in a piece of work, such as jobguard.
// f is called by whoever decides, perhaps by several at once, and must return
// soon. Who watches a context around is told as well.
func Watch(ctx context.Context, f func(Decision)) context.Context {
	around, _ := ctx.Value(watchKey{}).(func(Decision))
	return context.WithValue(ctx, watchKey{}, func(d Decision) {
		f(d)
		if around != nil {
			around(d)
		}
	})
}

// tell passes a decision to those who watch its context.
func tell(ctx context.Context, d Decision) {
	if f, ok := ctx.Value(watchKey{}).(func(Decision)); ok {
		f(d)
	}
}
