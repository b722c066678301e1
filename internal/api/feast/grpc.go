package feast

import (
	"context"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"waybill"
	"waybill/featurestore"
	feastserving "waybill/proto/feast/serving"
	feasttypes "waybill/proto/feast/types"
)

// Serving is feast.serving.ServingService. Its calls have passed the interceptors of internal/api; Actor says who calls.
type Serving struct {
	feastserving.UnimplementedServingServiceServer
	Door  *Door
	Actor func(ctx context.Context) waybill.Actor
}

// GetFeastServingInfo says what answers.
func (s *Serving) GetFeastServingInfo(context.Context, *feastserving.GetFeastServingInfoRequest) (*feastserving.GetFeastServingInfoResponse, error) {
	return &feastserving.GetFeastServingInfoResponse{Version: s.Door.Version}, nil
}

// GetOnlineFeatures reads features.
func (s *Serving) GetOnlineFeatures(ctx context.Context, req *feastserving.GetOnlineFeaturesRequest) (*feastserving.GetOnlineFeaturesResponse, error) {
	return s.Door.getOnline(ctx, s.Actor(ctx), req)
}

// Server is GrpcFeatureServer. Its calls have passed the interceptors of internal/api; Actor says who calls.
type Server struct {
	feastserving.UnimplementedGrpcFeatureServerServer
	Door  *Door
	Actor func(ctx context.Context) waybill.Actor
}

// GetOnlineFeatures reads features.
func (s *Server) GetOnlineFeatures(ctx context.Context, req *feastserving.GetOnlineFeaturesRequest) (*feastserving.GetOnlineFeaturesResponse, error) {
	return s.Door.getOnline(ctx, s.Actor(ctx), req)
}

// Push appends one row.
func (s *Server) Push(ctx context.Context, req *feastserving.PushRequest) (*feastserving.PushResponse, error) {
	if err := destination(req.GetTo()); err != nil {
		return nil, err
	}
	df, err := oneRow(req.GetFeatures(), req.GetTypedFeatures())
	if err != nil {
		return nil, err
	}
	if _, err := s.Door.write(ctx, s.Actor(ctx), "stream_feature_view", &write{view: req.GetStreamFeatureView(), df: df}); err != nil {
		return nil, err
	}
	return &feastserving.PushResponse{Status: true}, nil
}

// WriteToOnlineStore appends one row.
func (s *Server) WriteToOnlineStore(ctx context.Context, req *feastserving.WriteToOnlineStoreRequest) (*feastserving.WriteToOnlineStoreResponse, error) {
	df, err := oneRow(req.GetFeatures(), req.GetTypedFeatures())
	if err != nil {
		return nil, err
	}
	if _, err := s.Door.write(ctx, s.Actor(ctx), "feature_view_name", &write{view: req.GetFeatureViewName(), df: df}); err != nil {
		return nil, err
	}
	return &feastserving.WriteToOnlineStoreResponse{Status: true}, nil
}

// oneRow makes a frame of one row from texts or from typed values.
func oneRow(texts map[string]string, typed map[string]*feasttypes.Value) (f frame, err error) {
	if len(texts) > 0 && len(typed) > 0 {
		return f, waybill.InvalidField("typed_features", "are given beside features; give one of the two")
	}
	if len(texts)+len(typed) > maxColumns {
		return f, waybill.Errorf(waybill.TooLarge, "the row has %d columns; at most %d", len(texts)+len(typed), maxColumns)
	}
	for name, text := range texts {
		f.names, f.columns = append(f.names, name), append(f.columns, []any{text})
	}
	for name, value := range typed {
		v, err := fromValue("typed_features."+clip(name), value)
		if err != nil {
			return f, err
		}
		f.names, f.columns = append(f.names, name), append(f.columns, []any{v})
	}
	f.rows = min(1, len(f.names))
	return f, nil
}

// getOnline reads what a request asks for.
func (d *Door) getOnline(ctx context.Context, actor waybill.Actor, req *feastserving.GetOnlineFeaturesRequest) (*feastserving.GetOnlineFeaturesResponse, error) {
	q := query{service: req.GetFeatureService(), features: req.GetFeatures().GetVal(), full: req.GetFullFeatureNames(), versions: req.GetIncludeFeatureViewVersionMetadata()}
	for field, columns := range map[string]map[string]*feasttypes.RepeatedValue{"entities": req.GetEntities(), "request_context": req.GetRequestContext()} {
		for name, column := range columns {
			at := field + "." + clip(name)
			if len(q.entities.names) == maxColumns {
				return nil, waybill.Errorf(waybill.TooLarge, "%s has more than %d columns", field, maxColumns)
			}
			if slices.Contains(q.entities.names, name) {
				return nil, waybill.InvalidField(at, "is there twice; give it as an entity or as context")
			}
			if len(column.GetVal()) > maxRows {
				return nil, waybill.Errorf(waybill.TooLarge, "%s has %d rows; at most %d in one request: send the rest in another", at, len(column.GetVal()), maxRows)
			}
			list := make([]any, len(column.GetVal()))
			for i, v := range column.GetVal() {
				var err error
				if list[i], err = fromValue(at, v); err != nil {
					return nil, err
				}
			}
			q.entities.names, q.entities.columns = append(q.entities.names, name), append(q.entities.columns, list)
			q.entities.rows = len(q.entities.columns[0])
		}
	}
	q.entities.sort()
	if err := q.entities.even("entities"); err != nil {
		return nil, err
	}
	if _, err := d.asked(&q); err != nil {
		return nil, err
	}
	a, err := d.read(ctx, actor.Tenant, &q)
	if err != nil {
		return nil, err
	}
	defer a.batch.Release()
	return a.message(q.versions), nil
}

// sort puts the columns into the order of their names: a protobuf map has none.
func (f *frame) sort() {
	order := make([]int, len(f.names))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if f.names[a] < f.names[b] {
			return -1
		}
		return 1
	})
	names, columns := make([]string, len(order)), make([][]any, len(order))
	for i, n := range order {
		names[i], columns[i] = f.names[n], f.columns[n]
	}
	f.names, f.columns = names, columns
	if len(columns) > 0 {
		f.rows = len(columns[0])
	}
}

// message is the answer over gRPC.
func (a *answer) message(versions bool) *feastserving.GetOnlineFeaturesResponse {
	out := &feastserving.GetOnlineFeaturesResponse{Status: true, Metadata: &feastserving.GetOnlineFeaturesResponseMetadata{
		FeatureNames: &feastserving.FeatureList{Val: slices.Concat(a.entities.names, a.names)}}}
	if versions {
		for _, v := range a.views {
			out.Metadata.FeatureViewMetadata = append(out.Metadata.FeatureViewMetadata, &feastserving.FeatureViewMetadata{Name: v.Name, Version: int32(v.Version)})
		}
	}
	never := &timestamppb.Timestamp{}
	for _, column := range a.entities.columns {
		r := &feastserving.GetOnlineFeaturesResponse_FeatureVector{}
		for _, v := range column {
			value, _ := toValue("", v)
			r.Values, r.Statuses, r.EventTimestamps = append(r.Values, value), append(r.Statuses, feastserving.FieldStatus_PRESENT), append(r.EventTimestamps, never)
		}
		out.Results = append(out.Results, r)
	}
	rows := a.batch.Rows()
	var raw featurestore.Raw
	for i, output := range a.outputs {
		r := &feastserving.GetOnlineFeaturesResponse_FeatureVector{Values: make([]*feasttypes.Value, rows),
			Statuses: make([]feastserving.FieldStatus, rows), EventTimestamps: make([]*timestamppb.Timestamp, rows)}
		for j := range rows {
			a.batch.Value(j, output, &raw)
			value, null := toValue(a.types[i], boxed(&raw))
			s, event := a.worth(j, output)
			r.Values[j] = value
			r.Statuses[j] = feastserving.FieldStatus(feastserving.FieldStatus_value[string(status(s, null))])
			if r.EventTimestamps[j] = never; event != 0 {
				r.EventTimestamps[j] = timestamppb.New(time.UnixMicro(event))
			}
		}
		out.Results = append(out.Results, r)
	}
	return out
}

// boxed is a raw value as the store's other readers give it.
func boxed(raw *featurestore.Raw) any {
	switch raw.Kind {
	case featurestore.RawBool:
		return raw.Int != 0
	case featurestore.RawInt:
		return raw.Int
	case featurestore.RawFloat:
		return raw.Float
	case featurestore.RawText:
		return string(raw.Text)
	case featurestore.RawTime:
		return time.UnixMicro(raw.Int).UTC()
	case featurestore.RawOther:
		return raw.Other
	}
	return nil
}

// fromValue reads a value. Sets, maps and what else this hub has not are unknown fields here; they are refused.
func fromValue(field string, v *feasttypes.Value) (any, error) {
	if len(v.ProtoReflect().GetUnknown()) > 0 {
		return nil, waybill.InvalidField(field, "is of a type that this hub has not (a set, a map, a zoned time); give numbers, texts, bytes, times or lists of them")
	}
	switch v := v.GetVal().(type) {
	case *feasttypes.Value_BytesVal:
		return v.BytesVal, nil
	case *feasttypes.Value_StringVal:
		return v.StringVal, nil
	case *feasttypes.Value_JsonVal:
		return v.JsonVal, nil
	case *feasttypes.Value_UuidVal:
		return v.UuidVal, nil
	case *feasttypes.Value_TimeUuidVal:
		return v.TimeUuidVal, nil
	case *feasttypes.Value_DecimalVal:
		return v.DecimalVal, nil
	case *feasttypes.Value_Int32Val:
		return int64(v.Int32Val), nil
	case *feasttypes.Value_Int64Val:
		return v.Int64Val, nil
	case *feasttypes.Value_UnixTimestampVal:
		return v.UnixTimestampVal, nil
	case *feasttypes.Value_DoubleVal:
		return v.DoubleVal, nil
	case *feasttypes.Value_FloatVal:
		return float64(v.FloatVal), nil
	case *feasttypes.Value_BoolVal:
		return v.BoolVal, nil
	case *feasttypes.Value_BytesListVal:
		return anys(v.BytesListVal.GetVal()), nil
	case *feasttypes.Value_StringListVal:
		return anys(v.StringListVal.GetVal()), nil
	case *feasttypes.Value_DecimalListVal:
		return anys(v.DecimalListVal.GetVal()), nil
	case *feasttypes.Value_Int32ListVal:
		out := make([]any, len(v.Int32ListVal.GetVal()))
		for i, x := range v.Int32ListVal.GetVal() {
			out[i] = int64(x)
		}
		return out, nil
	case *feasttypes.Value_Int64ListVal:
		return anys(v.Int64ListVal.GetVal()), nil
	case *feasttypes.Value_UnixTimestampListVal:
		return anys(v.UnixTimestampListVal.GetVal()), nil
	case *feasttypes.Value_DoubleListVal:
		return anys(v.DoubleListVal.GetVal()), nil
	case *feasttypes.Value_FloatListVal:
		out := make([]any, len(v.FloatListVal.GetVal()))
		for i, x := range v.FloatListVal.GetVal() {
			out[i] = float64(x)
		}
		return out, nil
	case *feasttypes.Value_BoolListVal:
		return anys(v.BoolListVal.GetVal()), nil
	}
	return nil, nil // unset or null_val
}

func anys[T any](in []T) []any {
	out := make([]any, len(in))
	for i, x := range in {
		out[i] = x
	}
	return out
}

// toValue writes a value in the field of its column's type, "" for whatever fits, and says whether it is null.
func toValue(t featurestore.Type, v any) (out *feasttypes.Value, null bool) {
	switch v := v.(type) {
	case bool:
		return &feasttypes.Value{Val: &feasttypes.Value_BoolVal{BoolVal: v}}, false
	case int64:
		if t == featurestore.Int32 {
			return &feasttypes.Value{Val: &feasttypes.Value_Int32Val{Int32Val: int32(v)}}, false
		}
		return &feasttypes.Value{Val: &feasttypes.Value_Int64Val{Int64Val: v}}, false
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return &feasttypes.Value{}, true
		}
		if t == featurestore.Float32 {
			return &feasttypes.Value{Val: &feasttypes.Value_FloatVal{FloatVal: float32(v)}}, false
		}
		return &feasttypes.Value{Val: &feasttypes.Value_DoubleVal{DoubleVal: v}}, false
	case string:
		return &feasttypes.Value{Val: &feasttypes.Value_StringVal{StringVal: v}}, false
	case featurestore.Decimal: // as the registry types it: see valueType
		return &feasttypes.Value{Val: &feasttypes.Value_StringVal{StringVal: string(v)}}, false
	case time.Time:
		return &feasttypes.Value{Val: &feasttypes.Value_UnixTimestampVal{UnixTimestampVal: v.Unix()}}, false
	case []byte:
		return &feasttypes.Value{Val: &feasttypes.Value_BytesVal{BytesVal: v}}, false
	case []float32:
		return &feasttypes.Value{Val: &feasttypes.Value_FloatListVal{FloatListVal: &feasttypes.FloatList{Val: v}}}, false
	case []any:
		return listValue(t, v)
	}
	return &feasttypes.Value{}, true
}

// listValue writes a list. An empty one has a type here, unlike in JSON, and is no null.
func listValue(t featurestore.Type, list []any) (*feasttypes.Value, bool) {
	switch t {
	case "list<bool>":
		return &feasttypes.Value{Val: &feasttypes.Value_BoolListVal{BoolListVal: &feasttypes.BoolList{Val: each(list, func(x bool) bool { return x })}}}, false
	case "list<int32>":
		return &feasttypes.Value{Val: &feasttypes.Value_Int32ListVal{Int32ListVal: &feasttypes.Int32List{Val: each(list, func(x int64) int32 { return int32(x) })}}}, false
	case "list<int64>":
		return &feasttypes.Value{Val: &feasttypes.Value_Int64ListVal{Int64ListVal: &feasttypes.Int64List{Val: each(list, func(x int64) int64 { return x })}}}, false
	case "list<float32>":
		return &feasttypes.Value{Val: &feasttypes.Value_FloatListVal{FloatListVal: &feasttypes.FloatList{Val: each(list, func(x float64) float32 { return float32(x) })}}}, false
	case "list<float64>":
		return &feasttypes.Value{Val: &feasttypes.Value_DoubleListVal{DoubleListVal: &feasttypes.DoubleList{Val: each(list, func(x float64) float64 { return x })}}}, false
	case "list<timestamp>":
		return &feasttypes.Value{Val: &feasttypes.Value_UnixTimestampListVal{UnixTimestampListVal: &feasttypes.Int64List{Val: each(list, func(x time.Time) int64 { return x.Unix() })}}}, false
	case "list<bytes>":
		return &feasttypes.Value{Val: &feasttypes.Value_BytesListVal{BytesListVal: &feasttypes.BytesList{Val: each(list, func(x []byte) []byte { return x })}}}, false
	case "list<decimal>":
		return &feasttypes.Value{Val: &feasttypes.Value_StringListVal{StringListVal: &feasttypes.StringList{Val: each(list, func(x featurestore.Decimal) string { return string(x) })}}}, false
	case "list<string>":
		return &feasttypes.Value{Val: &feasttypes.Value_StringListVal{StringListVal: &feasttypes.StringList{Val: each(list, func(x string) string { return x })}}}, false
	default: // no list
	}
	return &feasttypes.Value{}, true
}

// each converts the elements of a list, all of one Go type: that of the column's elements.
func each[T, U any](list []any, f func(T) U) []U {
	out := make([]U, 0, len(list))
	for _, x := range list {
		if v, ok := x.(T); ok {
			out = append(out, f(v))
		}
	}
	return out
}
