// Package policy evaluates the CEL expressions that grants and credentials
// carry: which tenant a workload's identity stands for, and whether a
// condition holds. It is pure: no I/O and no state beyond compiled programs.
//
// It refuses what is not certain. An expression that doesn't compile, fails,
// costs too much, takes too long, builds a value that is too large or yields
// another type than asked for is an error, and an error denies. There are
// CEL's standard functions only, and the pattern of `matches` is a literal.
package policy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	lru "github.com/hashicorp/golang-lru/v2"
)

// Bounds of an expression and of its evaluation.
const (
	MaxExpression = 2 << 10                // bytes of source
	maxNodes      = 1000                   // of the syntax tree
	maxDepth      = 50                     // of its nesting
	maxLoops      = 10                     // all, exists, exists_one, map and filter
	costLimit     = 50_000                 // CEL cost units, about one per operation or 10 bytes touched
	timeLimit     = 100 * time.Millisecond // of one evaluation
	checkEvery    = 100                    // comprehension steps between looks at the clock
	sizeLimit     = 4_000                  // of one value: elements at all depths, 10 bytes of a string count as one
	sizeDepth     = 64                     // of one value; deeper ones are too large
	cacheSize     = 4096                   // compiled programs
)

var (
	// ErrExpression means that the expression can't be used; the text says why.
	ErrExpression = errors.New("unusable CEL expression")
	// ErrEvaluation means that the evaluation failed or yielded another type.
	ErrEvaluation = errors.New("CEL evaluation failed")
)

// Kind says what an expression is for: which variables it sees, what it yields.
type Kind string

// The kinds of expression.
const (
	// TenantFrom sees `claims` and yields a string: a grant's tenant_from.
	TenantFrom Kind = "tenant_from"
	// Condition sees `claims`, `tenant`, `audience`, `scopes` (a list of
	// strings) and `now` (a timestamp) and yields a bool: a grant's condition.
	Condition Kind = "condition"
	// Credential sees `claims` and yields a bool: a platform credential's condition.
	Credential Kind = "credential"
)

// Check reports why expr can't serve as kind; nil if it can. Every error wraps
// ErrExpression and may be shown to who wrote the expression.
func Check(kind Kind, expr string) error {
	_, err := compile(kind, expr)
	return err
}

// NeedsClaims reports whether an expression that can serve as kind reads the
// claims of the workload: without them it can't be evaluated.
func NeedsClaims(kind Kind, expr string) bool {
	env, ok := claimless[kind]
	if !ok {
		return true
	}
	_, err := read(env, expr)
	return err != nil
}

// Engine evaluates expressions and keeps compiled ones, a bounded number. It
// is safe for concurrent use.
type Engine struct {
	programs *lru.Cache[programKey, cel.Program]
}

type programKey struct {
	kind Kind
	sum  [sha256.Size]byte
}

// New returns an Engine.
func New() *Engine {
	c, err := lru.New[programKey, cel.Program](cacheSize)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &Engine{programs: c}
}

// Input is what a grant's condition sees.
type Input struct {
	Claims   Claims
	Tenant   string
	Audience string
	Scopes   []string
	Now      time.Time
}

// Tenant evaluates a grant's tenant_from.
//
// Errors: ErrExpression, ErrEvaluation.
func (e *Engine) Tenant(ctx context.Context, expr string, claims Claims) (string, error) {
	v, err := e.eval(ctx, TenantFrom, expr, map[string]any{"claims": claims.value()})
	if err != nil {
		return "", err
	}
	s, ok := v.(types.String)
	if !ok {
		return "", fmt.Errorf("%w: it yields no string", ErrEvaluation)
	}
	return string(s), nil
}

// Condition evaluates a grant's condition.
//
// Errors: ErrExpression, ErrEvaluation.
func (e *Engine) Condition(ctx context.Context, expr string, in Input) (bool, error) {
	return e.bool(ctx, Condition, expr, map[string]any{
		"claims": in.Claims.value(), "tenant": in.Tenant, "audience": in.Audience,
		"scopes": in.Scopes, "now": in.Now,
	})
}

// Vouches evaluates the condition of a platform credential.
//
// Errors: ErrExpression, ErrEvaluation.
func (e *Engine) Vouches(ctx context.Context, expr string, claims Claims) (bool, error) {
	return e.bool(ctx, Credential, expr, map[string]any{"claims": claims.value()})
}

func (e *Engine) bool(ctx context.Context, kind Kind, expr string, vars map[string]any) (bool, error) {
	v, err := e.eval(ctx, kind, expr, vars)
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("%w: it yields no bool", ErrEvaluation)
	}
	return bool(b), nil
}

func (e *Engine) eval(ctx context.Context, kind Kind, expr string, vars map[string]any) (ref.Val, error) {
	key := programKey{kind, sha256.Sum256([]byte(expr))}
	program, ok := e.programs.Get(key)
	if !ok {
		var err error
		if program, err = compile(kind, expr); err != nil {
			return nil, err
		}
		e.programs.Add(key, program)
	}
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	v, _, err := program.ContextEval(ctx, vars)
	if err != nil {
		// The cause can quote claims; it is for the audit record only in kind.
		return nil, ErrEvaluation
	}
	return v, nil // not its Value, which unfolds what CEL holds folded
}

func compile(kind Kind, expr string) (cel.Program, error) {
	env, ok := environments[kind]
	if !ok {
		return nil, fmt.Errorf("%w: unknown kind %q", ErrExpression, kind)
	}
	ast, err := read(env, expr)
	if err != nil {
		return nil, err
	}
	want := cel.BoolType
	if kind == TenantFrom {
		want = cel.StringType
	}
	if got := ast.OutputType(); !got.IsExactType(want) && !got.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("%w: it yields %s, not %s", ErrExpression, got, want)
	}
	program, err := env.Program(ast,
		cel.EvalOptions(cel.OptOptimize),
		cel.CostLimit(costLimit),
		cel.MemoryTracking(types.MemoryTrackerSizeCalculator(types.NewSizeCalculator(
			types.SizeCalculatorMaxDepth(sizeDepth), types.SizeCalculatorMaxTraversal(sizeLimit)))),
		cel.MemoryLimit(sizeLimit),
		cel.InterruptCheckFrequency(checkEvery))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExpression, err)
	}
	return program, nil
}

// read parses an expression and checks its types. Its shape is looked at in
// between, since the checker has no limits of its own.
func read(env *cel.Env, expr string) (*cel.Ast, error) {
	if expr == "" || len(expr) > MaxExpression {
		return nil, fmt.Errorf("%w: 1 to %d bytes", ErrExpression, MaxExpression)
	}
	parsed, issues := env.Parse(expr)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExpression, err)
	}
	if why := misshapen(parsed.NativeRep()); why != "" {
		return nil, fmt.Errorf("%w: %s", ErrExpression, why)
	}
	checked, issues := env.Check(parsed)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExpression, err)
	}
	return checked, nil
}

var (
	environments = environmentsWith(cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)))
	claimless    = environmentsWith()
)

func environmentsWith(always ...cel.EnvOption) map[Kind]*cel.Env {
	return map[Kind]*cel.Env{
		TenantFrom: environment(always),
		Credential: environment(always),
		Condition: environment(always,
			cel.Variable("tenant", cel.StringType),
			cel.Variable("audience", cel.StringType),
			cel.Variable("scopes", cel.ListType(cel.StringType)),
			cel.Variable("now", cel.TimestampType)),
	}
}

func environment(always []cel.EnvOption, more ...cel.EnvOption) *cel.Env {
	env, err := cel.NewEnv(append(slices.Concat(always, more),
		cel.ParserExpressionSizeLimit(MaxExpression),
		cel.ParserRecursionLimit(maxDepth),
		cel.ExpressionNodeLimit(maxNodes),
		cel.ExpressionNestingDepthLimit(maxDepth),
		cel.DefaultUTCTimeZone(true),
		cel.EagerlyValidateDeclarations(true),
		// Standard functions only: what the extensions build (replace, join,
		// format) is paid for by what goes in, not by what comes out.
		cel.ASTValidators(patterns{}))...)
	if err != nil {
		panic(err) // the declarations above are constants
	}
	return env
}
