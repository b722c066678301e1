package api

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"waybill"
	"waybill/featurestore"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// Online reads go from the wire's bytes to rows in memory and back to bytes, without messages in between: making and
// marshalling the generated ones would cost many times what the look-up does. The bytes are those of ReadOnlineRequest
// and ReadOnlineResponse; a test compares them with what the generated code says.

// onlineRequest is a ReadOnlineRequest whose rows are still bytes. As a message it is the request without them, which is
// what the interceptors look at.
type onlineRequest struct {
	*featurestorev1.ReadOnlineRequest
	rows [][]byte // each a google.protobuf.Struct
}

// onlineResponse is a marshalled ReadOnlineResponse.
type onlineResponse struct{ buf *[]byte }

// answers holds buffers for responses, which gRPC gives back when they were sent.
var answers = mem.DefaultBufferPool() //nolint:gochecknoglobals // a pool is one by its nature

// registerOnline makes a network server answer ReadOnline from bytes.
func registerOnline(r grpc.ServiceRegistrar, s *features) {
	desc := featurestorev1.FeatureStoreService_ServiceDesc
	desc.Methods = slices.Clone(desc.Methods)
	for i := range desc.Methods {
		if desc.Methods[i].MethodName == "ReadOnline" {
			desc.Methods[i].Handler = readOnlineHandler
		}
	}
	r.RegisterService(&desc, s)
}

func readOnlineHandler(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	in := &onlineRequest{ReadOnlineRequest: &featurestorev1.ReadOnlineRequest{}}
	if err := dec(in); err != nil {
		return nil, err
	}
	info := &grpc.UnaryServerInfo{Server: srv, FullMethod: featurestorev1.FeatureStoreService_ReadOnline_FullMethodName}
	return intercept(ctx, in, info, func(ctx context.Context, req any) (any, error) {
		s, ok1 := srv.(*features)
		in, ok2 := req.(*onlineRequest)
		if !ok1 || !ok2 {
			return nil, waybill.Errorf(waybill.Internal, "an online read of %T by %T", req, srv)
		}
		buf := answers.Get(answerSize)
		*buf = (*buf)[:0]
		var err error
		if *buf, err = s.readOnline(ctx, *buf, in); err != nil {
			answers.Put(buf)
			return nil, err
		}
		return onlineResponse{buf}, nil
	})
}

// answerSize is the first size of a response's buffer in bytes.
const answerSize = 4 << 10

// Marshal hands a response to the transport, which gives its buffer back.
func (l lenient) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(onlineResponse); ok {
		return mem.BufferSlice{mem.NewBuffer(r.buf, answers)}, nil
	}
	return l.CodecV2.Marshal(v)
}

// unmarshal splits the request's bytes. It keeps them.
func (r *onlineRequest) unmarshal(b []byte) error {
	rest := make([]byte, 0, 64) // everything but the rows
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			return protowire.ParseError(m)
		}
		if num == 2 && typ == protowire.BytesType {
			row, _ := protowire.ConsumeBytes(b[n:])
			r.rows = append(r.rows, row)
		} else {
			rest = append(rest, b[:n+m]...)
		}
		b = b[n+m:]
	}
	return proto.Unmarshal(rest, r.ReadOnlineRequest)
}

// ReadOnline answers those who come with messages: the REST door.
func (s *features) ReadOnline(ctx context.Context, req *featurestorev1.ReadOnlineRequest) (*featurestorev1.ReadOnlineResponse, error) {
	in := &onlineRequest{ReadOnlineRequest: req}
	for _, row := range req.GetRows() {
		b, err := proto.Marshal(row)
		if err != nil {
			return nil, fmt.Errorf("marshal row: %w", err)
		}
		in.rows = append(in.rows, b)
	}
	b, err := s.readOnline(ctx, nil, in)
	if err != nil {
		return nil, err
	}
	out := &featurestorev1.ReadOnlineResponse{}
	if err := proto.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("read own answer: %w", err)
	}
	return out, nil
}

// readOnline appends the marshalled answer to b.
func (s *features) readOnline(ctx context.Context, b []byte, req *onlineRequest) ([]byte, error) {
	tenant := callerOf(ctx).actor.Tenant
	ref, err := waybill.ParseVersionRef("service", req.GetService())
	if err != nil {
		return b, err
	}
	if n := len(req.rows); n == 0 || n > featurestore.MaxBatch {
		return b, waybill.InvalidField("rows", fmt.Sprintf("must be 1 to %d; there are %d", featurestore.MaxBatch, n))
	}
	r, err := s.store.Reader(ctx, tenant, ref)
	if err != nil {
		return b, err
	}
	if err := s.maySee(ctx, r.Version(), r.Secrets()); err != nil {
		return b, err
	}
	if len(req.GetMinSequence()) > 0 {
		if err := s.await(ctx, r, req.GetMinSequence()); err != nil {
			return b, err
		}
	}
	batch, err := r.Batch(len(req.rows))
	if err != nil {
		return b, err
	}
	defer batch.Release()
	if err := fillInputs(r, batch, req.rows); err != nil {
		return b, err
	}
	if err := batch.Read(ctx, waybill.SystemClock()); err != nil {
		return b, err
	}
	return appendOnline(b, r, batch)
}

// await waits until a reader sees the commits that were asked for. A view is named with a version that the service reads, or
// without for the newest of these; any other is refused: waiting for it would not help the read, and would tell what the
// caller may not know.
func (s *features) await(ctx context.Context, r *featurestore.Reader, least map[string]int64) error {
	for view, seq := range least {
		ref, err := waybill.ParseVersionRef("min_sequence", view)
		if err != nil {
			return err
		}
		read := waybill.VersionRef{}
		for _, v := range r.Views() {
			if v.Name == ref.Name && (ref.Version == 0 || v.Version == ref.Version) && v.Version > read.Version {
				read = v
			}
		}
		if read.Version == 0 {
			return waybill.InvalidField("min_sequence", "names "+ref.String()+", which "+r.Version().String()+" does not read; it reads "+joinRefs(r.Views()))
		}
		if err := s.store.Await(ctx, callerOf(ctx).actor.Tenant, read, seq); err != nil {
			return err
		}
	}
	return nil
}

func joinRefs(refs []waybill.VersionRef) string {
	names := make([]string, len(refs))
	for i, r := range refs {
		names[i] = r.String()
	}
	return strings.Join(names, ", ")
}

// maxUnknownInputs is how many unknown names one answer lists.
const maxUnknownInputs = 20

// fillInputs reads the rows of a request. Names that are no input of the service are refused: a misspelt one would be
// read as null.
func fillInputs(r *featurestore.Reader, batch *featurestore.Batch, rows [][]byte) error {
	var bad []waybill.Violation
	fail := func(row int, name []byte, remedy string) {
		if len(bad) < maxUnknownInputs {
			bad = append(bad, waybill.Violation{Field: clipPath(fmt.Sprintf("rows[%d].%.60s", row, name)), Remedy: remedy})
		}
	}
	for i, b := range rows {
		for len(b) > 0 {
			entry, rest, ok := structEntry(b)
			if !ok {
				return errNoMessage
			}
			if b = rest; entry == nil {
				continue
			}
			name, value, ok := nameAndValue(entry)
			if !ok {
				return errNoMessage
			}
			at := r.Input(name)
			if at < 0 {
				var names []string
				for _, c := range r.Inputs() {
					names = append(names, c.Name)
				}
				fail(i, name, "is no input of "+r.Version().String()+"; it takes "+strings.Join(names, ", "))
				continue
			}
			remedy, ok := setInput(batch, i, at, value)
			if !ok {
				return errNoMessage
			}
			if remedy != "" {
				fail(i, name, remedy)
			}
		}
	}
	return waybill.InvalidFields(bad)
}

// structEntry takes the next field from the bytes of a google.protobuf.Struct: an entry of its map, or nil for a field
// that it has not.
func structEntry(b []byte) (entry, rest []byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return nil, nil, false
	}
	m := protowire.ConsumeFieldValue(num, typ, b[n:])
	if m < 0 {
		return nil, nil, false
	}
	if num == 1 && typ == protowire.BytesType {
		entry, _ = protowire.ConsumeBytes(b[n : n+m])
	}
	return entry, b[n+m:], true
}

// nameAndValue takes an entry apart; the value is a marshalled google.protobuf.Value.
func nameAndValue(entry []byte) (name, value []byte, ok bool) {
	for len(entry) > 0 {
		num, typ, n := protowire.ConsumeTag(entry)
		if n < 0 {
			return nil, nil, false
		}
		m := protowire.ConsumeFieldValue(num, typ, entry[n:])
		if m < 0 {
			return nil, nil, false
		}
		if typ == protowire.BytesType && (num == 1 || num == 2) {
			field, _ := protowire.ConsumeBytes(entry[n : n+m])
			if num == 1 {
				name = field
			} else {
				value = field
			}
		}
		entry = entry[n+m:]
	}
	return name, value, utf8.Valid(name)
}

// setInput gives an input the value of a marshalled google.protobuf.Value. remedy says what is wrong with it; ok is
// false when it is no such message.
func setInput(batch *featurestore.Batch, row, at int, b []byte) (remedy string, ok bool) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return "", len(b) == 0 // an empty Value is null
	}
	switch {
	case num == 2 && typ == protowire.Fixed64Type && len(b) == n+8:
		x := math.Float64frombits(binary.LittleEndian.Uint64(b[n:]))
		if x-x != 0 {
			return "is not a finite number; give one, or null where the value is unknown", true
		}
		batch.SetNumber(row, at, x)
		return "", true
	case num == 3 && typ == protowire.BytesType:
		text, m := protowire.ConsumeBytes(b[n:])
		if m < 0 || !utf8.Valid(text) {
			return "", false
		}
		if n+m == len(b) {
			if slices.Contains(text, 0) {
				return "holds the character U+0000, which is not text; leave it out", true
			}
			batch.SetText(row, at, text)
			return "", true
		}
	}
	// Everything rare: truth values, null, lists, objects, and messages that set the value twice.
	v := &structpb.Value{}
	if err := proto.Unmarshal(b, v); err != nil {
		return "", false
	}
	var bad []waybill.Violation
	if checkJSON("", v, &bad); len(bad) > 0 {
		return bad[0].Remedy, true
	}
	batch.Set(row, at, v.AsInterface())
	return "", true
}

// The tags of what is written: field number and wire type (0 for varint), in one byte each.
const (
	tagService    = 1<<3 | 2 // ReadOnlineResponse
	tagNames      = 2<<3 | 2
	tagRows       = 3<<3 | 2
	tagSequences  = 4<<3 | 2
	tagCells      = 1<<3 | 2 // FeatureRow
	tagValue      = 1<<3 | 2 // Cell
	tagStatus     = 2<<3 | 2
	tagEvent      = 3<<3 | 2
	tagSequence   = 4 << 3
	tagView       = 5<<3 | 2
	tagNull       = 1 << 3 // google.protobuf.Value
	tagNumber     = 2<<3 | 1
	tagText       = 3<<3 | 2
	tagBool       = 4 << 3
	tagMapKey     = 1<<3 | 2 // map entries
	tagMapValue   = 2 << 3
	tagSeconds    = 1 << 3 // google.protobuf.Timestamp
	tagNanos      = 2 << 3
	wholeAsNumber = 1 << 53 // from here on whole numbers are written as text
)

// scratch is what one answer is put together in.
type scratch struct {
	row   []byte
	cell  []byte
	tails [][]byte // per view: status, event time and sequence, as they end every cell of the view that has a value
	nulls [][]byte // per view: the whole cell without a value
	plain []byte   // the end of a cell of an input, made once
	empty []byte   // the whole cell of an input without a value, made once

	own, ownNull []byte // the same of one cell that was computed
}

var scratches = sync.Pool{New: func() any { return new(scratch) }} //nolint:gochecknoglobals // a pool is one by its nature

// appendOnline writes a ReadOnlineResponse. Cells of one view and row differ in their values alone, so what follows the
// value is written once and copied.
func appendOnline(b []byte, r *featurestore.Reader, batch *featurestore.Batch) ([]byte, error) {
	s, ok := scratches.Get().(*scratch)
	if !ok {
		s = new(scratch)
	}
	defer scratches.Put(s)
	version := r.Version().String()
	b = appendText(append(b, tagService), version)
	outputs := r.Outputs()
	for i := range outputs {
		b = appendText(append(b, tagNames), outputs[i].Name)
	}
	for len(s.tails) < r.Sources() {
		s.tails, s.nulls = append(s.tails, nil), append(s.nulls, nil)
	}
	if len(s.plain) == 0 {
		s.plain = appendStatus(nil, featurestore.Present, 0, 0)
		s.empty = appendNullCell(nil, appendStatus(nil, featurestore.NullValue, 0, 0))
	}
	var raw featurestore.Raw
	for i := range batch.Rows() {
		for v := range r.Sources() {
			status, event, seq := batch.Hit(i, v)
			s.tails[v] = appendStatus(s.tails[v][:0], status, event, seq)
			missing := status
			if status == featurestore.Present {
				missing = featurestore.NullValue
			}
			s.nulls[v] = appendNullCell(s.nulls[v][:0], appendStatus(s.cell[:0], missing, event, seq))
		}
		row := s.row[:0]
		for o := range outputs {
			tail, null := s.plain, s.empty
			if c := batch.Cell(i, o); c != nil {
				s.own = appendStatus(s.own[:0], c.Status, c.Event.UnixMicro(), c.Seq)
				if view, ok := batch.StandsIn(i, o); ok {
					s.own = appendText(append(s.own, tagView), view.String())
				}
				tail = s.own
				if c.Value == nil {
					s.ownNull = appendNullCell(s.ownNull[:0], tail)
					null = s.ownNull
				}
			} else if v := r.Source(o); v >= 0 {
				tail, null = s.tails[v], s.nulls[v]
			}
			batch.Value(i, o, &raw)
			switch raw.Kind {
			case featurestore.RawNull:
				row = append(row, null...)
			case featurestore.RawFloat:
				row = appendNumberCell(row, raw.Float, tail)
			case featurestore.RawInt:
				if raw.Int >= wholeAsNumber || raw.Int <= -wholeAsNumber {
					row = appendTextCell(row, strconv.AppendInt(s.cell[:0], raw.Int, 10), tail)
				} else {
					row = appendNumberCell(row, float64(raw.Int), tail)
				}
			case featurestore.RawBool:
				row = appendCell(row, []byte{tagBool, byte(raw.Int)}, tail)
			case featurestore.RawText:
				row = appendTextCell(row, raw.Text, tail)
			case featurestore.RawTime:
				row = appendTextCell(row, time.UnixMicro(raw.Int).UTC().AppendFormat(s.cell[:0], time.RFC3339Nano), tail)
			case featurestore.RawOther:
				v, err := valueOut(raw.Other)
				if err != nil {
					return b, err
				}
				value, err := proto.Marshal(v)
				if err != nil {
					return b, fmt.Errorf("marshal value: %w", err)
				}
				row = appendCell(row, value, tail)
			}
		}
		b = protowire.AppendBytes(append(b, tagRows), row)
		s.row = row
	}
	batch.Views(func(view waybill.VersionRef, seq int64) {
		entry := appendText(append(s.cell[:0], tagMapKey), view.String())
		entry = protowire.AppendVarint(append(entry, tagMapValue), uint64(seq))
		b = protowire.AppendBytes(append(b, tagSequences), entry)
		s.cell = entry
	})
	return b, nil
}

func appendText(b []byte, s string) []byte {
	return append(protowire.AppendVarint(b, uint64(len(s))), s...)
}

// appendStatus writes the fields of a Cell after its value; event (µs) and seq are left out when there is no row.
func appendStatus(b []byte, status featurestore.Status, event, seq int64) []byte {
	b = appendText(append(b, tagStatus), string(status))
	if seq == 0 {
		return b
	}
	seconds, nanos := event/1e6, event%1e6*1e3
	if nanos < 0 {
		seconds, nanos = seconds-1, nanos+1e9
	}
	n := 0
	if seconds != 0 {
		n += 1 + protowire.SizeVarint(uint64(seconds))
	}
	if nanos != 0 {
		n += 1 + protowire.SizeVarint(uint64(nanos))
	}
	b = append(b, tagEvent, byte(n))
	if seconds != 0 {
		b = protowire.AppendVarint(append(b, tagSeconds), uint64(seconds))
	}
	if nanos != 0 {
		b = protowire.AppendVarint(append(b, tagNanos), uint64(nanos))
	}
	return protowire.AppendVarint(append(b, tagSequence), uint64(seq))
}

// appendCell writes a Cell of a marshalled google.protobuf.Value and what follows it.
func appendCell(b, value, tail []byte) []byte {
	n := 1 + protowire.SizeBytes(len(value)) + len(tail)
	b = protowire.AppendVarint(append(b, tagCells), uint64(n))
	b = protowire.AppendBytes(append(b, tagValue), value)
	return append(b, tail...)
}

func appendNullCell(b, tail []byte) []byte { return appendCell(b, []byte{tagNull, 0}, tail) }

func appendNumberCell(b []byte, x float64, tail []byte) []byte {
	b = protowire.AppendVarint(append(b, tagCells), uint64(11+len(tail)))
	b = append(b, tagValue, 9, tagNumber)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	return append(b, tail...)
}

func appendTextCell(b, text, tail []byte) []byte {
	value := 1 + protowire.SizeBytes(len(text))
	b = protowire.AppendVarint(append(b, tagCells), uint64(1+protowire.SizeBytes(value)+len(tail)))
	b = protowire.AppendVarint(append(b, tagValue), uint64(value))
	b = protowire.AppendBytes(append(b, tagText), text)
	return append(b, tail...)
}

// valueOut writes a value as JSON has it; times are RFC 3339, bytes base64, and decimals and whole numbers from 2^53 on
// text: as they come in.
func valueOut(v any) (*structpb.Value, error) {
	switch v := v.(type) {
	case float64:
		return structpb.NewNumberValue(v), nil
	case int64:
		if v >= wholeAsNumber || v <= -wholeAsNumber {
			return structpb.NewStringValue(strconv.FormatInt(v, 10)), nil
		}
		return structpb.NewNumberValue(float64(v)), nil
	case []byte:
		return structpb.NewStringValue(base64.StdEncoding.EncodeToString(v)), nil
	case interface{ MarshalText() ([]byte, error) }:
		b, err := v.MarshalText()
		return structpb.NewStringValue(string(b)), err
	case []any:
		list := &structpb.ListValue{Values: make([]*structpb.Value, len(v))}
		for i := range v {
			var err error
			if list.Values[i], err = valueOut(v[i]); err != nil {
				return nil, err
			}
		}
		return structpb.NewListValue(list), nil
	case []float32:
		list := &structpb.ListValue{Values: make([]*structpb.Value, len(v))}
		for i, x := range v {
			list.Values[i] = structpb.NewNumberValue(float64(x))
		}
		return structpb.NewListValue(list), nil
	}
	return structpb.NewValue(v)
}
