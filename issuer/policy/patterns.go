package policy

import (
	"fmt"
	"regexp/syntax"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
)

// maxPattern bounds a pattern of `matches`, in steps of its program once all
// repetitions are written out: a{3} counts three. A short pattern can stand
// for a huge program, and both compiling and running it cost accordingly.
const maxPattern = 500

// patterns holds each use of `matches` to a literal pattern of bounded size,
// before anything compiles it. What a workload or a caller says is never a
// pattern.
type patterns struct{}

// Name implements cel.ASTValidator.
func (patterns) Name() string { return "tenantbroker.patterns" }

// Validate implements cel.ASTValidator.
func (patterns) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	for _, call := range ast.MatchDescendants(ast.NavigateAST(a), ast.FunctionMatcher(overloads.Matches)) {
		args := call.AsCall().Args()
		last := args[len(args)-1] // of both forms: s.matches(p), matches(s, p)
		if last.Kind() != ast.LiteralKind {
			issues.ReportErrorAtID(call.ID(), "the pattern of matches is a literal")
			continue
		}
		if text, ok := last.AsLiteral().(types.String); !ok || !boundedPattern(string(text)) {
			issues.ReportErrorAtID(call.ID(), "the pattern of matches can't be read, or is too large")
		}
	}
}

func boundedPattern(pattern string) bool {
	re, err := syntax.Parse(pattern, syntax.Perl)
	return err == nil && steps(re) <= maxPattern
}

// steps is how many steps a pattern has, about, when its repetitions are
// written out. It stops counting above maxPattern.
func steps(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n += steps(sub)
		if n > maxPattern {
			return n
		}
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1) // Max is -1 without an upper bound
	}
	return n
}

// misshapen says what of an expression could make its types, or its values,
// grow beyond measure, or "". A map's type holds that of its keys and that of
// its values: with keys that are values themselves, each map of maps would
// double it.
func misshapen(a *ast.AST) string {
	loops, computed := 0, false
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			loops++
		case ast.MapKind:
			for _, entry := range e.AsMap().Entries() {
				computed = computed || entry.AsMapEntry().Key().Kind() != ast.LiteralKind
			}
		}
	}))
	switch {
	case loops > maxLoops:
		return fmt.Sprintf("more than %d of all, exists, exists_one, map and filter", maxLoops)
	case computed:
		return "the keys of a map are literals"
	}
	return ""
}
