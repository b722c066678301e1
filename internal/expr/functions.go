package expr

import (
	"errors"
	"fmt"
	"math"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/decls"
	"cel.dev/cel-go/common/functions"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// earthKm is the mean radius R1 of the earth (IUGG), the one that the haversine formula is usually given.
const earthKm = 6371.0088

// walksList names the functions whose cost grows with the length of their one argument.
var walksList = map[string]bool{"sum": true, "min": true, "max": true}

// binaryOp is one of CEL's arithmetic operators, restated with the two mixed overloads that CEL does not have.
type binaryOp struct {
	id       string
	same     [][3]*cel.Type // left, right, result
	apply    func(a, b ref.Val) ref.Val
	operands int // trait of the left operand
}

var listA = cel.ListType(cel.TypeParamType("A"))

// arithmetic replaces these four operators of the standard library. Overload ids are kept, because CEL's cost
// model prices operators by them.
var arithmetic = map[string]binaryOp{
	operators.Add: {id: "add", operands: traits.AdderType,
		apply: func(a, b ref.Val) ref.Val { return a.(traits.Adder).Add(b) },
		same: [][3]*cel.Type{
			{cel.BytesType, cel.BytesType, cel.BytesType}, {cel.DoubleType, cel.DoubleType, cel.DoubleType},
			{cel.DurationType, cel.DurationType, cel.DurationType}, {cel.DurationType, cel.TimestampType, cel.TimestampType},
			{cel.TimestampType, cel.DurationType, cel.TimestampType}, {cel.IntType, cel.IntType, cel.IntType},
			{listA, listA, listA}, {cel.StringType, cel.StringType, cel.StringType}, {cel.UintType, cel.UintType, cel.UintType}}},
	operators.Subtract: {id: "subtract", operands: traits.SubtractorType,
		apply: func(a, b ref.Val) ref.Val { return a.(traits.Subtractor).Subtract(b) },
		same: [][3]*cel.Type{
			{cel.DoubleType, cel.DoubleType, cel.DoubleType}, {cel.DurationType, cel.DurationType, cel.DurationType},
			{cel.IntType, cel.IntType, cel.IntType}, {cel.TimestampType, cel.DurationType, cel.TimestampType},
			{cel.TimestampType, cel.TimestampType, cel.DurationType}, {cel.UintType, cel.UintType, cel.UintType}}},
	operators.Multiply: {id: "multiply", operands: traits.MultiplierType,
		apply: func(a, b ref.Val) ref.Val { return a.(traits.Multiplier).Multiply(b) },
		same: [][3]*cel.Type{
			{cel.DoubleType, cel.DoubleType, cel.DoubleType}, {cel.IntType, cel.IntType, cel.IntType}, {cel.UintType, cel.UintType, cel.UintType}}},
	operators.Divide: {id: "divide", operands: traits.DividerType,
		apply: func(a, b ref.Val) ref.Val { return a.(traits.Divider).Divide(b) },
		same: [][3]*cel.Type{
			{cel.DoubleType, cel.DoubleType, cel.DoubleType}, {cel.IntType, cel.IntType, cel.IntType}, {cel.UintType, cel.UintType, cel.UintType}}},
}

// overloadID is CEL's own id where it has that overload, e.g. add_int64, add_duration_timestamp, divide_double.
func overloadID(op string, a, b *cel.Type) string {
	names := map[types.Kind]string{types.IntKind: "int64", types.UintKind: "uint64", types.DoubleKind: "double", types.StringKind: "string",
		types.BytesKind: "bytes", types.ListKind: "list", types.DurationKind: "duration", types.TimestampKind: "timestamp"}
	l, r := names[a.Kind()], names[b.Kind()]
	if l == r && l != "duration" && l != "timestamp" {
		return op + "_" + l
	}
	return op + "_" + l + "_" + r
}

// library returns the declarations of the arithmetic operators and of our functions.
//
//	distance_km(lat1, lng1, lat2, lng2)  great-circle distance in kilometres; degrees in, error outside ±90 / ±180
//	hours_between(t1, t2)                hours from t1 to t2, negative when t2 is earlier
//	sum(list)                            sum of a list of numbers as a double; 0 when empty
//	min(a, b, …) max(a, b, …)            two to four numbers, or one non-empty list of numbers
//	abs(x)                               int or double
//	log1p exp log sqrt floor ceil round  of one number, giving a double; round goes half away from zero
//	coalesce(x, d)                       x, or d when x is null
func library() []cel.EnvOption {
	var opts []cel.EnvOption
	for name, op := range arithmetic {
		var fn []cel.FunctionOpt
		for _, s := range op.same {
			fn = append(fn, cel.Overload(overloadID(op.id, s[0], s[1]), []*cel.Type{s[0], s[1]}, s[2]))
		}
		for _, m := range [][2]*cel.Type{{cel.DoubleType, cel.IntType}, {cel.IntType, cel.DoubleType}} {
			fn = append(fn, cel.Overload(overloadID(op.id, m[0], m[1]), []*cel.Type{m[0], m[1]}, cel.DoubleType))
		}
		fn = append(fn, cel.SingletonBinaryBinding(func(a, b ref.Val) ref.Val { return op.apply(widen(a, b)) }, op.operands))
		opts = append(opts, cel.Function(name, fn...))
	}
	d, i := cel.DoubleType, cel.IntType
	opts = append(opts,
		cel.Function("distance_km", numeric("distance_km", 4, d), cel.SingletonFunctionBinding(distanceKm)),
		cel.Function("hours_between", cel.Overload("hours_between", []*cel.Type{cel.TimestampType, cel.TimestampType}, d),
			cel.SingletonBinaryBinding(hoursBetween)),
		cel.Function("sum", cel.Overload("sum_list", []*cel.Type{cel.ListType(cel.DynType)}, d), cel.SingletonUnaryBinding(sum)),
		cel.Function("min", append(extremes("min"), cel.SingletonFunctionBinding(extreme(-1)))...),
		cel.Function("max", append(extremes("max"), cel.SingletonFunctionBinding(extreme(1)))...),
		cel.Function("abs", cel.Overload("abs_double", []*cel.Type{d}, d), cel.Overload("abs_int", []*cel.Type{i}, i),
			cel.SingletonUnaryBinding(abs)),
		cel.Function("coalesce", append(coalesces(), cel.SingletonBinaryBinding(func(x, fallback ref.Val) ref.Val {
			if x == types.NullValue {
				return fallback
			}
			return x
		}))...),
	)
	for name, f := range map[string]func(float64) float64{
		"log1p": math.Log1p, "exp": math.Exp, "log": math.Log, "sqrt": math.Sqrt, "floor": math.Floor, "ceil": math.Ceil, "round": math.Round,
	} {
		opts = append(opts, cel.Function(name,
			cel.Overload(name+"_double", []*cel.Type{d}, d), cel.Overload(name+"_int", []*cel.Type{i}, d),
			cel.SingletonUnaryBinding(func(v ref.Val) ref.Val {
				x, ok := asDouble(v)
				if !ok {
					return types.MaybeNoSuchOverloadErr(v)
				}
				return finite(name, f(x))
			})))
	}
	return opts
}

// widen turns the int of a mixed pair into a double, so that 2 * x means the same for an int and a double x.
func widen(a, b ref.Val) (ref.Val, ref.Val) {
	if n, ok := a.(types.Int); ok {
		if _, ok := b.(types.Double); ok {
			return types.Double(n), b
		}
	}
	if n, ok := b.(types.Int); ok {
		if _, ok := a.(types.Double); ok {
			return a, types.Double(n)
		}
	}
	return a, b
}

func asDouble(v ref.Val) (float64, bool) {
	switch x := v.(type) {
	case types.Double:
		return float64(x), true
	case types.Int:
		return float64(x), true
	case types.Uint:
		return float64(x), true
	}
	return 0, false
}

func finite(name string, x float64) ref.Val {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return types.NewErr("%s is not a finite number here", name)
	}
	return types.Double(x)
}

// numeric declares every combination of int and double for n arguments.
func numeric(name string, n int, result *cel.Type) cel.FunctionOpt {
	return func(f *decls.FunctionDecl) (*decls.FunctionDecl, error) {
		var err error
		for mask := range 1 << n {
			args := make([]*cel.Type, n)
			for k := range n {
				args[k] = cel.DoubleType
				if mask>>k&1 == 1 {
					args[k] = cel.IntType
				}
			}
			if f, err = cel.Overload(fmt.Sprintf("%s_%d_%d", name, n, mask), args, result)(f); err != nil {
				return nil, err
			}
		}
		return f, nil
	}
}

func extremes(name string) []cel.FunctionOpt {
	opts := []cel.FunctionOpt{cel.Overload(name+"_list", []*cel.Type{cel.ListType(cel.DynType)}, cel.DynType)}
	for n := 2; n <= 4; n++ {
		ints := make([]*cel.Type, n)
		for k := range ints {
			ints[k] = cel.IntType
		}
		opts = append(opts, cel.Overload(fmt.Sprintf("%s_%d_int", name, n), ints, cel.IntType))
		for mask := range 1<<n - 1 { // all ints is above
			args := make([]*cel.Type, n)
			for k := range n {
				args[k] = cel.DoubleType
				if mask>>k&1 == 1 {
					args[k] = cel.IntType
				}
			}
			opts = append(opts, cel.Overload(fmt.Sprintf("%s_%d_%d", name, n, mask), args, cel.DoubleType))
		}
	}
	return opts
}

// coalesces declares coalesce for each type on its own, so that its result keeps its type; a mixed pair of numbers is a double.
func coalesces() []cel.FunctionOpt {
	d, i := cel.DoubleType, cel.IntType
	opts := []cel.FunctionOpt{
		cel.Overload("coalesce_double_int", []*cel.Type{d, i}, d),
		cel.Overload("coalesce_int_double", []*cel.Type{i, d}, d),
	}
	for name, t := range map[string]*cel.Type{"bool": cel.BoolType, "int": i, "double": d, "string": cel.StringType,
		"timestamp": cel.TimestampType, "duration": cel.DurationType, "list": cel.ListType(cel.DynType), "map": cel.MapType(cel.StringType, cel.DynType)} {
		opts = append(opts, cel.Overload("coalesce_"+name, []*cel.Type{t, t}, t))
	}
	return opts
}

// distanceKm is the haversine formula (R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68, 1984).
func distanceKm(args ...ref.Val) ref.Val {
	var p [4]float64
	for k, v := range args {
		x, ok := asDouble(v)
		if !ok {
			return types.MaybeNoSuchOverloadErr(v)
		}
		bound := 90.0
		if k%2 == 1 {
			bound = 180
		}
		if !(math.Abs(x) <= bound) {
			return types.NewErr("distance_km: %g is outside ±%g degrees; the order is lat1, lng1, lat2, lng2", x, bound)
		}
		p[k] = x * math.Pi / 180
	}
	s, t := math.Sin((p[2]-p[0])/2), math.Sin((p[3]-p[1])/2)
	h := s*s + math.Cos(p[0])*math.Cos(p[2])*t*t
	return types.Double(2 * earthKm * math.Asin(math.Min(1, math.Sqrt(h))))
}

func hoursBetween(a, b ref.Val) ref.Val {
	from, ok := a.(types.Timestamp)
	if !ok {
		return types.MaybeNoSuchOverloadErr(a)
	}
	to, ok := b.(types.Timestamp)
	if !ok {
		return types.MaybeNoSuchOverloadErr(b)
	}
	// Not to.Sub(from): a Duration overflows after 292 years and timestamps range over ten thousand.
	secs := float64(to.Unix()-from.Unix()) + float64(to.Nanosecond()-from.Nanosecond())/1e9
	return types.Double(secs / 3600)
}

func listLen(v ref.Val) int64 {
	if s, ok := v.(traits.Sizer); ok {
		if n, ok := s.Size().(types.Int); ok {
			return int64(n)
		}
	}
	return 0
}

func sum(v ref.Val) ref.Val {
	l, ok := v.(traits.Lister)
	if !ok {
		return types.MaybeNoSuchOverloadErr(v)
	}
	total := 0.0
	for it := l.Iterator(); it.HasNext() == types.True; {
		e := it.Next()
		x, ok := asDouble(e)
		if !ok {
			return types.NewErr("sum: an element is %s, not a number", e.Type().TypeName())
		}
		total += x
	}
	return finite("sum", total)
}

// extreme returns min (sign -1) or max (sign 1). The result keeps the type of the chosen value unless the
// arguments mix ints and doubles, where it is a double, as declared.
func extreme(sign float64) functions.FunctionOp {
	return func(args ...ref.Val) ref.Val {
		var best ref.Val
		var bestX float64
		mixed := false
		take := func(v ref.Val) ref.Val {
			x, ok := asDouble(v)
			if !ok {
				return types.MaybeNoSuchOverloadErr(v)
			}
			mixed = mixed || best != nil && best.Type() != v.Type()
			if best == nil || sign*x > sign*bestX {
				best, bestX = v, x
			}
			return nil
		}
		if len(args) == 1 {
			l, ok := args[0].(traits.Lister)
			if !ok {
				return types.MaybeNoSuchOverloadErr(args[0])
			}
			for it := l.Iterator(); it.HasNext() == types.True; {
				if err := take(it.Next()); err != nil {
					return err
				}
			}
			if best == nil {
				return types.NewErr("min and max need a list that is not empty")
			}
		} else {
			for _, v := range args {
				if err := take(v); err != nil {
					return err
				}
			}
		}
		if mixed {
			return types.Double(bestX)
		}
		return best
	}
}

func abs(v ref.Val) ref.Val {
	switch x := v.(type) {
	case types.Double:
		return types.Double(math.Abs(float64(x)))
	case types.Int:
		if x == math.MinInt64 {
			return types.NewErr("abs: integer overflow")
		}
		return max(x, -x)
	}
	return types.MaybeNoSuchOverloadErr(v)
}

var (
	errFinite = errors.New("the result is not a finite number")
	errLarge  = fmt.Errorf("the result is larger than %d elements or %d bytes of text", maxResult, maxResultText)
)

// native converts a result to plain Go values. budget counts elements and shrinks; depth guards the stack.
func native(v ref.Val, budget *int, depth int) (any, error) {
	if *budget--; *budget < 0 || depth > 20 {
		return nil, errLarge
	}
	switch x := v.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(x), nil
	case types.Int:
		return int64(x), nil
	case types.Uint:
		if x > math.MaxInt64 {
			return nil, errors.New("the unsigned result is over the range of int")
		}
		return int64(x), nil
	case types.Double:
		if f := float64(x); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f, nil
		}
		return nil, errFinite
	case types.String:
		if len(x) > maxResultText {
			return nil, errLarge
		}
		return string(x), nil
	case types.Timestamp:
		return x.UTC().Truncate(time.Microsecond), nil
	case types.Duration:
		return nil, errors.New("the result is a duration; use hours_between or d.getHours()")
	case traits.Mapper:
		out := make(map[string]any, min(listLen(x), maxResult))
		for it := x.Iterator(); it.HasNext() == types.True; {
			k := it.Next()
			key, ok := k.(types.String)
			if !ok {
				return nil, errors.New("the result is a map whose keys are not text")
			}
			val, err := native(x.Get(k), budget, depth+1)
			if err != nil {
				return nil, err
			}
			out[string(key)] = val
		}
		return out, nil
	case traits.Lister:
		out := make([]any, 0, min(listLen(x), maxResult))
		for it := x.Iterator(); it.HasNext() == types.True; {
			val, err := native(it.Next(), budget, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, val)
		}
		return out, nil
	}
	return nil, fmt.Errorf("the result is %s, which has no plain form", v.Type().TypeName())
}
