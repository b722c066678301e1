package expr

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"waybill"
)

// Type names the type of a variable or of a result.
type Type string

// The types. Every variable may also be null, which means that its value is missing.
const (
	Bool      Type = "bool"
	Int       Type = "int"       // Go int64; any Go integer and a float64 without a fraction are accepted
	Double    Type = "double"    // Go float64; any Go number is accepted, NaN means missing
	String    Type = "string"    // Go string
	Timestamp Type = "timestamp" // Go time.Time; an RFC 3339 string is accepted
	List      Type = "list"      // list of dyn; Go []any and other slices
	Map       Type = "map"       // map from string to dyn; Go map[string]any
	Dyn       Type = "dyn"       // checked when evaluated
)

// The bounds. An expression is a formula, not a program: one that meets a bound belongs in the pipeline that writes
// the features.
const (
	MaxSource     = 4096    // code points of source text
	MaxVars       = 2000    // declared variables
	MaxCost       = 200_000 // CEL cost units in one evaluation, about one per operation; reached in less than 100 ms
	maxEstimate   = 2_000_000
	maxNodes      = 2000 // syntax tree nodes after macros are expanded
	maxDepth      = 60   // nesting of the syntax tree
	maxNesting    = 2    // comprehensions within comprehensions
	maxRegex      = 100  // size of a regular expression's program; RE2, so linear time
	assumedList   = 1000 // elements assumed in a list variable when the cost is estimated
	assumedString = 4096 // bytes assumed in a string variable
	maxResult     = 10_000
	maxResultText = 64 << 10
)

// Program is a compiled expression. It is immutable.
type Program struct {
	field string
	vars  map[string]Type
	used  []string
	want  Type
	prog  cel.Program
}

// Compile parses, type-checks and plans source. vars declares the variables it may read; names are CEL identifiers,
// dots allowed ("order.qty"). want is the type of the result, "" for any; an int satisfies "double". field names the
// expression in the error, which is waybill.Invalid and gives line and column of each mistake.
func Compile(field, source string, vars map[string]Type, want Type) (*Program, error) {
	if strings.TrimSpace(source) == "" {
		return nil, waybill.InvalidField(field, "the expression is empty; write a CEL expression")
	}
	if len(source) > 4*MaxSource {
		return nil, waybill.InvalidField(field, fmt.Sprintf("the expression is longer than %d characters; split it up", MaxSource))
	}
	base, err := baseEnv()
	if err != nil {
		return nil, fmt.Errorf("build expression environment: %w", err)
	}
	decls, err := declare(field, vars)
	if err != nil {
		return nil, err
	}
	e, err := base.Extend(decls...)
	if err != nil {
		return nil, waybill.Wrap(waybill.Invalid, err, field+": the variables cannot be declared")
	}
	checked, err := check(field, e, source)
	if err != nil {
		return nil, err
	}
	if err := checkResult(field, checked.OutputType(), want); err != nil {
		return nil, err
	}
	est, err := e.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, waybill.Wrap(waybill.Invalid, err, field+": the cost of the expression cannot be estimated")
	}
	if est.Max > maxEstimate {
		return nil, waybill.InvalidField(field, fmt.Sprintf(
			"the expression may cost %d operations on lists of %d elements, over the limit of %d; use fewer nested loops", est.Max, assumedList, maxEstimate))
	}
	prog, err := e.Program(checked, cel.CostLimit(MaxCost), cel.CostTracking(callCost{}), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		// Planning with OptOptimize evaluates constant parts, so a wrong constant (a bad regular expression, say) shows here.
		return nil, waybill.InvalidField(field, "1:1: "+clean(err.Error()))
	}
	own := make(map[string]Type, len(vars))
	for k, v := range vars {
		own[k] = v
	}
	return &Program{field: field, vars: own, used: used(checked, own), want: want, prog: prog}, nil
}

// Vars returns the declared variables that the expression mentions, sorted. A loop variable of the same name as a
// declared one counts as a mention.
func (p *Program) Vars() []string { return append([]string(nil), p.used...) }

// Eval computes the expression. A declared variable that vars lacks is null; names that were not declared are ignored.
// The result is bool, int64, float64, string, time.Time, []any, map[string]any or nil, and fits the wanted type or is nil (never nil
// for Bool: a condition that is neither true nor false is an error). Errors are waybill.Invalid naming the field:
// a missing value in arithmetic, a division by zero, a result that is not finite, too high a cost.
func (p *Program) Eval(vars map[string]any) (any, error) {
	out, _, err := p.prog.Eval(&activation{types: p.vars, vals: vars})
	if err != nil {
		return nil, p.fail(clean(err.Error()))
	}
	budget := maxResult
	v, err := native(out, &budget, 0)
	if err != nil {
		return nil, p.fail(err.Error())
	}
	return p.coerce(v)
}

func (p *Program) fail(remedy string) error { return waybill.InvalidField(p.field, remedy) }

// coerce fits a result to the wanted type. The checker has done so already except where the expression is dyn.
func (p *Program) coerce(v any) (any, error) {
	if v == nil {
		if p.want == Bool {
			return nil, p.fail("the condition is null; compare missing values with has(x) or coalesce(x, default)")
		}
		return nil, nil
	}
	ok := true
	switch p.want {
	case Bool:
		_, ok = v.(bool)
	case Int:
		_, ok = v.(int64)
	case Double:
		if n, isInt := v.(int64); isInt {
			v = float64(n)
		}
		_, ok = v.(float64)
	case String:
		_, ok = v.(string)
	case Timestamp:
		_, ok = v.(time.Time)
	case List:
		_, ok = v.([]any)
	case Map:
		_, ok = v.(map[string]any)
	case Dyn: // any
	}
	if !ok {
		return nil, p.fail(fmt.Sprintf("the result is %T, not %s", v, p.want))
	}
	return v, nil
}

// baseEnv is the environment without variables, built once: it is immutable, and costs about a millisecond.
var baseEnv = sync.OnceValues(func() (*cel.Env, error) {
	excluded := make([]*env.Function, 0, len(arithmetic))
	for name := range arithmetic {
		excluded = append(excluded, env.NewFunction(name))
	}
	sort.Slice(excluded, func(i, j int) bool { return excluded[i].Name < excluded[j].Name })
	opts := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(env.NewLibrarySubset().AddExcludedFunctions(excluded...))),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(MaxSource),
		cel.ParserRecursionLimit(maxDepth),
		cel.ExpressionNodeLimit(maxNodes),
		cel.ExpressionNestingDepthLimit(4 * maxDepth),
		cel.RegexProgramSizeLimit(maxRegex),
		cel.ASTValidators(
			cel.ValidateComprehensionNestingLimit(maxNesting),
			cel.ValidateRegexLiterals(),
			cel.ValidateTimestampLiterals(),
			cel.ValidateDurationLiterals(),
		),
		cel.Macros(cel.GlobalMacro(operators.Has, 1, expandHas)),
	}
	return cel.NewCustomEnv(append(opts, library()...)...)
})

// check parses and type-checks. CEL orders an int and a double (3 < d) but refuses to ask whether they are equal
// (3 == d), because == takes two values of one type and admits no further overload. Where the checker refuses exactly
// that, the left operand is wrapped in dyn(), which at run time compares the two as numbers.
func check(field string, e *cel.Env, source string) (*cel.Ast, error) {
	parsed, issues := e.Parse(source)
	if issues != nil && issues.Err() != nil {
		return nil, positions(field, issues)
	}
	// Each round mends at least one comparison, and a mended one may uncover another around it.
	for {
		checked, issues := e.Check(parsed)
		if issues == nil || issues.Err() == nil {
			return checked, nil
		}
		if !mendEqualities(parsed.NativeRep(), issues) {
			return nil, positions(field, issues)
		}
	}
}

var mixedNumbers = regexp.MustCompile(`^found no matching overload for '(_==_|_!=_|@in)' applied to '\((.*)\)'$`)

func mendEqualities(a *ast.AST, issues *cel.Issues) bool {
	ids := map[int64]bool{}
	for _, e := range issues.Errors() {
		m := mixedNumbers.FindStringSubmatch(e.Message)
		if m == nil {
			return false
		}
		for operand := range strings.SplitSeq(m[2], ", ") {
			switch strings.NewReplacer("wrapper(", "", "list(", "", ")", "").Replace(operand) {
			case "int", "double":
			default:
				return false
			}
		}
		ids[e.ExprID] = true
	}
	mended := false
	fac, next := ast.NewExprFactory(), ast.MaxID(a)
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		if !ids[x.ID()] || x.Kind() != ast.CallKind || len(x.AsCall().Args()) != 2 {
			return
		}
		call := x.AsCall()
		wrapped := fac.NewCall(next, "dyn", call.Args()[0])
		next++
		x.SetKindCase(fac.NewCall(x.ID(), call.FunctionName(), wrapped, call.Args()[1]))
		mended = true
	}))
	return mended
}

// expandHas is CEL's has(a.b) extended to a plain variable: has(x) is x != null.
func expandHas(mef cel.MacroExprFactory, _ ast.Expr, args []ast.Expr) (ast.Expr, *cel.Error) {
	switch args[0].Kind() {
	case ast.SelectKind:
		s := args[0].AsSelect()
		return mef.NewPresenceTest(s.Operand(), s.FieldName()), nil
	case ast.IdentKind:
		return mef.NewCall(operators.NotEquals, mef.NewCall("dyn", args[0]), mef.NewLiteral(types.NullValue)), nil
	default:
	}
	return nil, mef.NewError(args[0].ID(), "has() takes a variable or a field, as in has(order.weight)")
}

// celTypes declares scalars as nullable (CEL's wrapper types), so that x == null type-checks and x + 1 does as well.
var celTypes = map[Type]*cel.Type{
	Bool:      cel.NullableType(cel.BoolType),
	Int:       cel.NullableType(cel.IntType),
	Double:    cel.NullableType(cel.DoubleType),
	String:    cel.NullableType(cel.StringType),
	Timestamp: cel.TimestampType,
	List:      cel.ListType(cel.DynType),
	Map:       cel.MapType(cel.StringType, cel.DynType),
	Dyn:       cel.DynType,
}

func declare(field string, vars map[string]Type) ([]cel.EnvOption, error) {
	if len(vars) > MaxVars {
		return nil, waybill.InvalidField(field, fmt.Sprintf("%d variables are declared; at most %d are allowed", len(vars), MaxVars))
	}
	names := make([]string, 0, len(vars))
	for name := range vars {
		names = append(names, name)
	}
	sort.Strings(names)
	opts := make([]cel.EnvOption, 0, len(names))
	for _, name := range names {
		if !identifier(name) {
			return nil, waybill.InvalidField(field, fmt.Sprintf(
				"the variable %q cannot be written in an expression; use letters, digits and _, and no word that CEL reserves", name))
		}
		t, ok := celTypes[vars[name]]
		if !ok {
			return nil, waybill.InvalidField(field, fmt.Sprintf(
				"the variable %q has the unknown type %q; use bool, int, double, string, timestamp, list, map or dyn", name, vars[name]))
		}
		opts = append(opts, cel.Variable(name, t))
	}
	return opts, nil
}

// reserved are the words that CEL keeps for itself, and the type names that a variable would hide.
var reserved = map[string]bool{
	"false": true, "in": true, "null": true, "true": true, "as": true, "break": true, "const": true, "continue": true,
	"else": true, "for": true, "function": true, "if": true, "import": true, "let": true, "loop": true, "package": true,
	"namespace": true, "return": true, "var": true, "void": true, "while": true,
	"bool": true, "bytes": true, "double": true, "int": true, "uint": true, "string": true, "list": true, "map": true,
	"type": true, "null_type": true, "dyn": true,
}

func identifier(name string) bool {
	if len(name) > 200 {
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || reserved[part] {
			return false
		}
		for i := range len(part) {
			c := part[i]
			if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
				return false
			}
		}
	}
	return true
}

func checkResult(field string, got *cel.Type, want Type) error {
	if want == "" || want == Dyn || got.Kind() == types.DynKind {
		return nil
	}
	t, ok := celTypes[want]
	if !ok {
		return waybill.InvalidField(field, fmt.Sprintf("the wanted result type %q is unknown", want))
	}
	name := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(cel.FormatCELType(got), "wrapper("), "google.protobuf."), ")")
	name = strings.ToLower(strings.TrimSuffix(name, "Value"))
	switch {
	case got.Kind() == types.NullTypeKind && want != Bool, name == string(want), name == "int" && want == Double:
	case (want == List || want == Map || want == Timestamp) && got.Kind() == t.Kind():
	default:
		return waybill.InvalidField(field, fmt.Sprintf("1:1: the expression gives %s where %s is wanted", name, want))
	}
	return nil
}

func positions(field string, issues *cel.Issues) error {
	var vs []waybill.Violation
	for _, e := range issues.Errors() {
		if len(vs) == 5 {
			break
		}
		vs = append(vs, waybill.Violation{Field: field, Remedy: fmt.Sprintf("%d:%d: %s", max(e.Location.Line(), 1), max(e.Location.Column()+1, 1), clean(e.Message))})
	}
	if len(vs) == 0 {
		vs = append(vs, waybill.Violation{Field: field, Remedy: "1:1: " + clean(issues.Err().Error())})
	}
	return waybill.InvalidFields(vs)
}

// clean keeps an error of the CEL library on one line and short: it may quote the caller's whole source.
func clean(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

func used(a *cel.Ast, vars map[string]Type) []string {
	seen := map[string]bool{}
	for _, r := range a.NativeRep().ReferenceMap() {
		if _, ok := vars[r.Name]; ok {
			seen[r.Name] = true
		}
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// sizes tells the cost estimator how large variables may be; CEL itself would assume infinite.
type sizes struct{}

func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	if len(n.Path()) == 0 {
		return nil
	}
	switch n.Type().Kind() {
	case types.ListKind, types.MapKind, types.DynKind:
		return &cost.SizeEstimate{Min: 0, Max: assumedList}
	case types.StringKind, types.BytesKind:
		return &cost.SizeEstimate{Min: 0, Max: assumedString}
	default: // the rest has no size
	}
	return nil
}

func (sizes) EstimateCallCost(function, _ string, _ *cost.AstNode, args []cost.AstNode) *cost.CallEstimate {
	if !walksList[function] || len(args) != 1 {
		return nil
	}
	size := uint64(assumedList)
	if s := args[0].ComputedSize(); s != nil && s.Max < size {
		size = s.Max
	}
	return cost.NewCallEstimate(cost.Estimate{Min: 1, Max: size + 1}, nil)
}

// callCost charges our list functions by the element; everything else has CEL's own price.
type callCost struct{}

func (callCost) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	if !walksList[function] || len(args) != 1 {
		return nil
	}
	c := uint64(1 + listLen(args[0]))
	return &c
}

// activation presents the caller's values to CEL, each converted to its declared type when it is first read.
type activation struct {
	types map[string]Type
	vals  map[string]any
}

func (*activation) Parent() cel.Activation { return nil }

func (a *activation) ResolveName(name string) (any, bool) {
	t, declared := a.types[name]
	if !declared {
		return nil, false
	}
	v, err := fit(a.vals[name], t)
	if err != nil {
		return types.NewErr("variable %s: %v", name, err), true
	}
	return v, true
}

var errType = errors.New("the value does not fit the declared type")

// fit converts v to the declared type, or to null when it is missing. A wrong type is an error and not a missing value.
func fit(v any, t Type) (ref.Val, error) {
	if v == nil {
		return types.NullValue, nil
	}
	n, isInt, isNum := number(v)
	if isNum && !isInt && math.IsNaN(n) {
		return types.NullValue, nil
	}
	switch t {
	case Double:
		if isNum {
			return types.Double(n), nil
		}
	case Int:
		if i, ok := integer(v); ok {
			return types.Int(i), nil
		}
	case Bool:
		if b, ok := v.(bool); ok {
			return types.Bool(b), nil
		}
	case String:
		if s, ok := v.(string); ok {
			return types.String(s), nil
		}
	case Timestamp:
		switch x := v.(type) {
		case time.Time:
			return types.Timestamp{Time: x.UTC()}, nil
		case string:
			at, err := time.Parse(time.RFC3339Nano, x)
			if err != nil {
				return nil, errors.New("the text is not an RFC 3339 time")
			}
			return types.Timestamp{Time: at.UTC()}, nil
		}
	default:
		if i, ok := v.(int); ok {
			v = int64(i)
		}
		out := types.DefaultTypeAdapter.NativeToValue(v)
		if types.IsError(out) || t == List && out.Type() != types.ListType || t == Map && out.Type() != types.MapType {
			return nil, errType
		}
		return out, nil
	}
	return nil, errType
}

// number returns v as a float64, whether v is a Go integer, and whether it is a number at all.
func number(v any) (n float64, isInt, isNum bool) {
	switch x := v.(type) {
	case float64:
		return x, false, true
	case float32:
		return float64(x), false, true
	}
	if i, ok := integer(v); ok {
		return float64(i), true, true
	}
	return 0, false, false
}

func integer(v any) (int64, bool) {
	switch x := v.(type) {
	case int64:
		return x, true
	case int:
		return int64(x), true
	case int32:
		return int64(x), true
	case int16:
		return int64(x), true
	case int8:
		return int64(x), true
	case uint8:
		return int64(x), true
	case uint16:
		return int64(x), true
	case uint32:
		return int64(x), true
	case uint64:
		return int64(x), x <= math.MaxInt64
	case uint:
		return int64(x), uint64(x) <= math.MaxInt64
	case float64:
		return int64(x), x == math.Trunc(x) && math.Abs(x) < 1<<53
	}
	return 0, false
}
