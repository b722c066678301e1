package featurestore

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"waybill/internal/expr"
)

// Type is the type of a column: one of the scalars below, list<scalar>, or vector<N> of N float32.
type Type string

// The scalar types, and the Go types of their values.
const (
	Bool      Type = "bool"      // bool
	Int32     Type = "int32"     // int64
	Int64     Type = "int64"     // int64
	Float32   Type = "float32"   // float64
	Float64   Type = "float64"   // float64
	String    Type = "string"    // string
	Bytes     Type = "bytes"     // []byte; base64 in JSON and CSV
	Timestamp Type = "timestamp" // time.Time in UTC, whole microseconds
	DecimalT  Type = "decimal"   // Decimal
)

// scalars lists the scalar types.
func scalars() []Type {
	return []Type{Bool, Int32, Int64, Float32, Float64, String, Bytes, Timestamp, DecimalT}
}

// Bounds of a value.
const (
	maxScalar = 64 << 10 // bytes of a text, of bytes and of a list as it is stored
	maxList   = 10_000   // elements
	maxVector = 16_384   // elements
)

// elem returns the type of a list's elements, "" when t is no list.
func (t Type) elem() Type {
	s, ok := strings.CutPrefix(string(t), "list<")
	if !ok || !strings.HasSuffix(s, ">") {
		return ""
	}
	return Type(strings.TrimSuffix(s, ">"))
}

// dim returns the length of a vector, 0 when t is none.
func (t Type) dim() int {
	s, ok := strings.CutPrefix(string(t), "vector<")
	if !ok || !strings.HasSuffix(s, ">") {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSuffix(s, ">"))
	if err != nil || n < 1 || n > maxVector || strconv.Itoa(n)+">" != s {
		return 0
	}
	return n
}

// scalar says whether t is a scalar type.
func (t Type) scalar() bool { return slices.Contains(scalars(), t) }

// known says whether t is a type.
func (t Type) known() bool { return t.scalar() || t.elem().scalar() || t.dim() > 0 }

// typeNames says which types there are, for error messages.
func typeNames() string {
	var s []string
	for _, t := range scalars() {
		s = append(s, string(t))
	}
	return strings.Join(s, ", ") + ", list<T> of these, or vector<N>"
}

// celType is what an expression sees. A decimal is read as a double, bytes as base64 text, a vector as a list of doubles.
func celType(t Type) expr.Type {
	switch t {
	case Bool:
		return expr.Bool
	case Int32, Int64:
		return expr.Int
	case Float32, Float64, DecimalT:
		return expr.Double
	case Timestamp:
		return expr.Timestamp
	case String, Bytes:
		return expr.String
	}
	return expr.List
}

// celValue converts a value to what celType promises.
func celValue(v any) any {
	switch v := v.(type) {
	case Decimal:
		return v.Float64()
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case []float32:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = float64(x)
		}
		return out
	case []any:
		if len(v) == 0 {
			return v
		}
		switch v[0].(type) {
		case Decimal, []byte:
			out := make([]any, len(v))
			for i := range v {
				out[i] = celValue(v[i])
			}
			return out
		}
	}
	return v
}

// Decimal is an exact decimal number: at most 38 digits, 9 of them after the point. Its text is canonical: no exponent, no
// leading and no trailing zeros ("-12.5", "0"), so that equal numbers are equal texts.
type Decimal string

// The digits of a decimal, as in Parquet's DECIMAL(38, 9).
const (
	decimalDigits = 38
	decimalScale  = 9
)

var (
	errDecimal = fmt.Errorf("is not a decimal number of at most %d digits, %d of them after the point", decimalDigits, decimalScale)
	tenTo9     = big.NewInt(1e9)
	decimalEnd = new(big.Int).Exp(big.NewInt(10), big.NewInt(decimalDigits), nil)
)

// ParseDecimal reads a decimal number such as "-12.50".
func ParseDecimal(s string) (Decimal, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, part, point := strings.Cut(digits, ".")
	if len(s) > 64 || whole == "" || point && part == "" || strings.Trim(whole+part, "0123456789") != "" {
		return "", errDecimal
	}
	whole, part = strings.TrimLeft(whole, "0"), strings.TrimRight(part, "0")
	if len(whole) > decimalDigits-decimalScale || len(part) > decimalScale {
		return "", errDecimal
	}
	out := whole
	if out == "" {
		out = "0"
	}
	if part != "" {
		out += "." + part
	}
	if negative && out != "0" {
		out = "-" + out
	}
	return Decimal(out), nil
}

// scaled returns d × 10⁹, which is whole.
func (d Decimal) scaled() *big.Int {
	whole, part, _ := strings.Cut(string(d), ".")
	n, ok := new(big.Int).SetString(whole+part+strings.Repeat("0", decimalScale-len(part)), 10)
	if !ok {
		return new(big.Int)
	}
	return n
}

// decimalOf is the inverse of scaled.
func decimalOf(n *big.Int) (Decimal, error) {
	if n.CmpAbs(decimalEnd) >= 0 {
		return "", errDecimal
	}
	sign := ""
	if n.Sign() < 0 {
		sign = "-"
	}
	whole, part := new(big.Int).QuoRem(new(big.Int).Abs(n), tenTo9, new(big.Int))
	return ParseDecimal(fmt.Sprintf("%s%s.%09d", sign, whole, part))
}

// Float64 returns the nearest double.
func (d Decimal) Float64() float64 {
	x, err := strconv.ParseFloat(string(d), 64)
	if err != nil {
		return math.NaN()
	}
	return x
}

// MarshalText writes the canonical text.
func (d Decimal) MarshalText() ([]byte, error) { return []byte(d), nil }

func toBytes(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case string:
		b, err := base64.StdEncoding.DecodeString(v)
		if err != nil {
			return nil, errors.New("is text that is not base64; give bytes in base64")
		}
		return b, nil
	}
	return nil, wrongly(v, "is %s; give bytes in base64")
}

func toDecimal(v any) (Decimal, error) {
	var text string
	switch v := v.(type) {
	case Decimal:
		return v, nil
	case string:
		text = v
	case int64:
		text = strconv.FormatInt(v, 10)
	case rounded:
		return "", wrongly(v, "is %s, and as a number it may have lost digits on its way: numbers are exact up to 15 digits; give decimals as strings")
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "", errors.New("is not a finite number; give one, or null where the value is unknown")
		}
		text = strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return "", wrongly(v, "is %s; give decimal")
	}
	d, err := ParseDecimal(text)
	if err != nil {
		return "", wrongly(v, "is %s, which %s", err)
	}
	return d, nil
}

// rounded is a number of a request for a decimal column that may be another one than was written: JSON's numbers come in
// doubles, which keep any 15 digits, and not any 16 (DBL_DIG of IEC 60559, ISO C 5.2.4.2.2).
type rounded float64

// requested finds the numbers that are rounded in a value of a request for a column of type t. Doubles of files and of
// expressions are what they are, and are not asked.
func requested(t Type, v any) any {
	switch v := v.(type) {
	case float64:
		if t == DecimalT && v-v == 0 && !exact(v) { // finite: others are refused for what they are
			return rounded(v)
		}
	case []any:
		if t.elem() != DecimalT {
			return v
		}
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = requested(DecimalT, x)
		}
		return out
	}
	return v
}

// exactDigits is how many digits a decimal number may have to be given again by its double, whatever they are.
const exactDigits = 15

// ExactNumber says whether the text of a JSON number, read as a float64, surely gives the same number again. Doors take the
// text of others as it is: a string in its place means the same to every numeric column.
func ExactNumber(text string) bool {
	if len(text) <= exactDigits {
		return true
	}
	digits := 0
	for _, c := range []byte(text) {
		switch {
		case c == 'e' || c == 'E':
			return digits <= exactDigits
		case c >= '1' && c <= '9' || c == '0' && digits > 0:
			digits++
		}
	}
	return digits <= exactDigits
}

// exact says whether x be the double of one decimal of at most 15 digits only.
func exact(x float64) bool {
	var buf [32]byte
	digits, _, _ := bytes.Cut(strconv.AppendFloat(buf[:0], math.Abs(x), 'e', -1, 64), []byte("e"))
	return len(digits) <= exactDigits+len(".") && math.Abs(x) < 1<<53
}

// elements returns what a list or vector is made of: a Go slice, or the JSON array in a text, as CSV has it.
func elements(t Type, v any) ([]any, error) {
	switch v := v.(type) {
	case []any:
		return v, nil
	case []float32:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = float64(x)
		}
		return out, nil
	case string:
		if len(v) > 1<<20 {
			return nil, fmt.Errorf("has %d bytes; at most 1 MiB", len(v))
		}
		d := json.NewDecoder(strings.NewReader(v))
		d.UseNumber()
		var out []any
		if err := d.Decode(&out); err != nil || d.More() || out == nil {
			return nil, wrongly(v, "is %s; give %s as a JSON array", t)
		}
		for i, x := range out {
			if n, ok := x.(json.Number); ok {
				out[i] = n.String()
			}
		}
		return out, nil
	}
	return nil, wrongly(v, "is %s; give %s", t)
}

// toList converts a list; its elements are never null.
func toList(t Type, v any) ([]any, error) {
	in, err := elements(t, v)
	if err != nil {
		return nil, err
	}
	if len(in) > maxList {
		return nil, fmt.Errorf("has %d elements; at most %d", len(in), maxList)
	}
	out, size := make([]any, len(in)), 0
	for i, x := range in {
		y, err := typed(Column{Type: t.elem(), Required: true}, x)
		if err != nil {
			return nil, wrongElement(i, err)
		}
		if y == nil { // NaN
			return nil, fmt.Errorf("has an element [%d] that is not a number; give one", i)
		}
		switch y := y.(type) {
		case string:
			size += len(y)
		case []byte:
			size += len(y)
		}
		if size += 8; size > maxScalar {
			return nil, fmt.Errorf("has more than %d bytes", maxScalar)
		}
		out[i] = y
	}
	return out, nil
}

// toVector converts a vector; its elements are finite.
func toVector(t Type, v any) ([]float32, error) {
	out, ok := v.([]float32)
	if !ok {
		in, err := elements(t, v)
		if err != nil {
			return nil, err
		}
		if len(in) != t.dim() {
			return nil, fmt.Errorf("has %d elements; give %d", len(in), t.dim())
		}
		out = make([]float32, len(in))
		for i, x := range in {
			f, err := convert(Float32, x)
			if err != nil {
				return nil, wrongElement(i, err)
			}
			if x, ok := f.(float64); ok {
				out[i] = float32(x)
			}
		}
	}
	if len(out) != t.dim() {
		return nil, fmt.Errorf("has %d elements; give %d", len(out), t.dim())
	}
	for i, x := range out {
		if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("has an element [%d] that is not a finite number", i)
		}
	}
	return out, nil
}
