package api

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	"waybill"
)

// maxBadValues is how many violations one answer names.
const maxBadValues = 20

// validate refuses what no field of any request may hold, and names where it is: text that is not UTF-8 or has the
// character U+0000 (neither is text to Postgres), and numbers that are not finite (JSON has none, so neither records
// nor leaves can hold them). What a field means is for the domains to check.
func validate(m proto.Message) error {
	var bad []waybill.Violation
	checkMessage("", m.ProtoReflect(), &bad)
	return waybill.InvalidFields(bad)
}

func checkText(path, s string, bad *[]waybill.Violation) {
	var remedy string
	switch {
	case !utf8.ValidString(s):
		remedy = "is not UTF-8; encode the text as UTF-8"
	case strings.IndexByte(s, 0) >= 0:
		remedy = "holds the character U+0000, which is not text; leave it out"
	default:
		return
	}
	if len(*bad) < maxBadValues {
		*bad = append(*bad, waybill.Violation{Field: clipPath(path), Remedy: remedy})
	}
}

func checkNumber(path string, x float64, bad *[]waybill.Violation) {
	if (math.IsNaN(x) || math.IsInf(x, 0)) && len(*bad) < maxBadValues {
		*bad = append(*bad, waybill.Violation{Field: clipPath(path), Remedy: "is not a finite number; give one, or null where the value is unknown"})
	}
}

// clipPath makes a path of caller's keys fit to be shown: UTF-8, printable, short.
func clipPath(path string) string {
	if len(path) > 200 {
		path = path[:200] + "…"
	}
	q := strconv.QuoteToGraphic(path)
	return q[1 : len(q)-1]
}

func under(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// checkMessage walks what is set of a message. Bytes may be anything.
func checkMessage(path string, m protoreflect.Message, bad *[]waybill.Violation) {
	switch v := m.Interface().(type) { // free-form JSON, without the names of its wrappers
	case *structpb.Struct:
		checkStruct(path, v, bad)
		return
	case *structpb.Value:
		checkJSON(path, v, bad)
		return
	case *structpb.ListValue:
		checkList(path, v, bad)
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := under(path, string(f.Name()))
		switch {
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				if f.MapKey().Kind() == protoreflect.StringKind {
					checkText(at, k.String(), bad)
				}
				checkValue(under(at, k.String()), f.MapValue(), v, bad)
				return len(*bad) < maxBadValues
			})
		case f.IsList():
			for i := range v.List().Len() {
				checkValue(at+"["+strconv.Itoa(i)+"]", f, v.List().Get(i), bad)
			}
		default:
			checkValue(at, f, v, bad)
		}
		return len(*bad) < maxBadValues
	})
}

func checkValue(path string, f protoreflect.FieldDescriptor, v protoreflect.Value, bad *[]waybill.Violation) {
	switch f.Kind() {
	case protoreflect.StringKind:
		checkText(path, v.String(), bad)
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		checkNumber(path, v.Float(), bad)
	case protoreflect.MessageKind, protoreflect.GroupKind:
		checkMessage(path, v.Message(), bad)
	default:
	}
}

func checkStruct(path string, s *structpb.Struct, bad *[]waybill.Violation) {
	for k, v := range s.GetFields() {
		checkText(path, k, bad)
		switch v := v.GetKind().(type) { // paths are made when they are needed only: this is the way of every decision
		case *structpb.Value_StringValue:
			if strings.IndexByte(v.StringValue, 0) < 0 && utf8.ValidString(v.StringValue) {
				continue
			}
		case *structpb.Value_BoolValue, *structpb.Value_NullValue:
			continue
		case *structpb.Value_NumberValue:
			if v.NumberValue-v.NumberValue == 0 { // finite
				continue
			}
		}
		checkJSON(under(path, k), v, bad)
	}
}

func checkList(path string, l *structpb.ListValue, bad *[]waybill.Violation) {
	for i, v := range l.GetValues() {
		checkJSON(path+"["+strconv.Itoa(i)+"]", v, bad)
	}
}

func checkJSON(path string, v *structpb.Value, bad *[]waybill.Violation) {
	switch v := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		checkText(path, v.StringValue, bad)
	case *structpb.Value_NumberValue:
		checkNumber(path, v.NumberValue, bad)
	case *structpb.Value_StructValue:
		checkStruct(path, v.StructValue, bad)
	case *structpb.Value_ListValue:
		checkList(path, v.ListValue, bad)
	}
}

// lenient decodes requests. gRPC calls a message that it cannot decode an internal error, and answers before any
// interceptor is asked; so what cannot be decoded comes through as an empty message with a mark, which decoded refuses.
type lenient struct{ encoding.CodecV2 }

// mark is an unknown field, the highest number there is (varint tag, value 1), that no .proto file uses.
const mark = "\xf8\xff\xff\xff\x0f\x01"

// markLarge is the same with the value 2: the message was not decoded because it is larger than its kind may be.
const markLarge = "\xf8\xff\xff\xff\x0f\x02"

// Unmarshal reads a message.
func (l lenient) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(proto.Message); ok && data.Len() > most(v) {
		m.ProtoReflect().SetUnknown([]byte(markLarge))
		return nil
	}
	var err error
	if r, ok := v.(*onlineRequest); ok {
		err = r.unmarshal(data.Materialize())
	} else {
		err = l.CodecV2.Unmarshal(data, v)
	}
	if m, ok := v.(proto.Message); ok && err != nil {
		proto.Reset(m)
		m.ProtoReflect().SetUnknown([]byte(mark))
		return nil //nolint:nilerr // the mark carries it
	}
	return err
}

// decoded refuses messages that were none.
func decoded(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	switch string(m.ProtoReflect().GetUnknown()) {
	case mark:
		return errNoMessage
	case markLarge:
		return waybill.Errorf(waybill.TooLarge, "the message is larger than allowed; at most %d bytes: ask for fewer rows at once", most(req))
	}
	return nil
}

var errNoMessage = waybill.Errorf(waybill.Invalid, "the message cannot be read; send it as the .proto files say, with all text in UTF-8")
