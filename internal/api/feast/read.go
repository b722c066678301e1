package feast

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"waybill"
	"waybill/featurestore"
)

// answer is what a query found, by columns: the entity columns as they were sent, then the outputs.
type answer struct {
	entities frame
	names    []string // of the outputs
	types    []featurestore.Type
	places   []int // output → place among a vector's cells
	vectors  []featurestore.Vector
	views    []waybill.VersionRef // which versions answered
}

// read answers a query.
func (d *Door) read(ctx context.Context, tenant waybill.Tenant, q *query) (*answer, error) {
	if q.entities.rows == 0 {
		return nil, waybill.InvalidField("entities", `must have 1 to 1,000 rows; write {"driver_id": [1001, 1002]}`)
	}
	if q.entities.rows > maxRows {
		return nil, waybill.Errorf(waybill.TooLarge, "entities have %d rows; at most %d in one request", q.entities.rows, maxRows)
	}
	var r *featurestore.Reader
	var refs []waybill.FeatureRef
	var err error
	switch {
	case q.service != "" && len(q.features) > 0:
		return nil, waybill.InvalidField("features", "are given beside feature_service; give one of the two")
	case q.service != "":
		var ref waybill.VersionRef
		if ref, err = waybill.ParseVersionRef("feature_service", q.service); err == nil {
			r, err = d.store.Reader(ctx, tenant, ref)
		}
	case len(q.features) > maxFeatures:
		err = waybill.Errorf(waybill.TooLarge, "features are %d; at most %d in one request", len(q.features), maxFeatures)
	case len(q.features) > 0:
		if refs, err = references(q.features); err == nil {
			r, err = d.store.FeaturesReader(ctx, tenant, refs)
		}
	default:
		err = waybill.InvalidField("features", "must name features as view:feature, or feature_service a service")
	}
	if err != nil {
		return nil, err
	}
	for _, s := range r.Secrets() {
		for _, view := range s.Views {
			if !d.May(ctx, "view/"+view, "read_personal") {
				return nil, waybill.Errorf(waybill.Denied, "%s tells personal or secret values of %s; ask for the right to read_personal on view/%s, or leave it out", s.Output, view, view)
			}
		}
	}
	rows, err := inputRows(r, q)
	if err != nil {
		return nil, err
	}
	a := &answer{entities: q.entities}
	if a.vectors, err = r.Read(ctx, d.clock(), rows); err != nil {
		return nil, blameEntities(err, q)
	}
	return a, a.name(r, refs, q)
}

// references reads a list of features; one that is there twice counts once.
func references(texts []string) ([]waybill.FeatureRef, error) {
	refs := make([]waybill.FeatureRef, 0, len(texts))
	seen := make(map[waybill.FeatureRef]bool, len(texts))
	for i, text := range texts {
		ref, err := reference("features["+strconv.Itoa(i)+"]", text)
		if err != nil {
			return nil, err
		}
		if !seen[ref] {
			seen[ref] = true
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// inputRows turns the entity columns into the reader's rows. A column that is no input is refused: a misspelt one would be
// read as null. Times are seconds since 1970 in this protocol, texts are taken too.
func inputRows(r *featurestore.Reader, q *query) ([]map[string]any, error) {
	inputs := r.Inputs()
	rows := make([]map[string]any, q.entities.rows)
	for i := range rows {
		rows[i] = make(map[string]any, len(q.entities.names))
	}
	for c, name := range q.entities.names {
		at := slices.IndexFunc(inputs, func(in featurestore.Column) bool { return in.Name == name })
		if at < 0 {
			names := make([]string, len(inputs))
			for i, in := range inputs {
				names[i] = in.Name
			}
			return nil, waybill.InvalidField("entities."+clip(name), "is no input of what is asked for; that takes "+strings.Join(names, ", "))
		}
		for i, v := range q.entities.columns[c] {
			rows[i][name] = incoming(inputs[at].Type, v)
		}
	}
	return rows, nil
}

// incoming turns a value of the protocol into one that the store takes: times come as seconds since 1970, alone or in lists.
func incoming(t featurestore.Type, v any) any {
	if list, ok := v.([]any); ok && t == "list<timestamp>" {
		out := make([]any, len(list))
		for i, x := range list {
			out[i] = incoming(featurestore.Timestamp, x)
		}
		return out
	}
	if t != featurestore.Timestamp {
		return v
	}
	const far = 1 << 40 // seconds; the store refuses years much nearer than that
	switch x := v.(type) {
	case int64:
		if x > -far && x < far {
			return time.Unix(x, 0).UTC()
		}
	case float64:
		if x > -far && x < far {
			return time.UnixMicro(int64(x * 1e6)).UTC()
		}
	case string:
		// What pandas writes for a time with a zone, which no other door needs.
		if t, err := time.Parse("2006-01-02 15:04:05Z07:00", x); err == nil {
			return t.UTC()
		}
	}
	return v
}

var rowField = regexp.MustCompile(`^rows\[(\d+)\]\.(.*)$`)

// blame puts an error about rows[3].queue into the words of a protocol by columns.
func blame(err error, field func(row int, column string) (string, string)) error {
	var e *waybill.Error
	if !errors.As(err, &e) || len(e.Violations) == 0 {
		return err
	}
	out := *e
	out.Violations = slices.Clone(e.Violations)
	for i, v := range out.Violations {
		m := rowField.FindStringSubmatch(v.Field)
		if m == nil {
			continue
		}
		row, err := strconv.Atoi(m[1])
		if err != nil {
			continue
		}
		path, more := field(row, m[2])
		out.Violations[i] = waybill.Violation{Field: path, Remedy: v.Remedy + more}
	}
	return &out
}

// blameEntities blames the entity column. One that was not sent at all is what clients before 0.64 do with composite keys.
func blameEntities(err error, q *query) error {
	return blame(err, func(row int, column string) (string, string) {
		if !slices.Contains(q.entities.names, column) {
			return "entities." + column, ". Feast clients before 0.64 send only the first of several join keys: use a later one, or this hub's own API"
		}
		return fmt.Sprintf("entities.%s[%d]", column, row), ""
	})
}

// name names the outputs: feature, or view__feature where full names are asked for. In a list of features the version that
// was asked for is part of the view's name (view@v2__feature), as in Feast. An expression's view is the service. An output
// that is an entity column of the request is there already.
func (a *answer) name(r *featurestore.Reader, refs []waybill.FeatureRef, q *query) error {
	views := map[string]waybill.VersionRef{} // of the features of a service, by name
	for i, f := range r.Features() {
		ref, err := waybill.ParseFeatureRef("features["+strconv.Itoa(i)+"]", f)
		if err != nil {
			return err
		}
		if views[ref.Feature] = ref.View; !slices.Contains(a.views, ref.View) {
			a.views = append(a.views, ref.View)
		}
	}
	outputs := r.Outputs()
	taken := make(map[string]int, len(outputs))
	for i, out := range outputs {
		view, ofView := views[out.Name]
		if !ofView && slices.Contains(q.entities.names, out.Name) {
			continue
		}
		name := out.Name
		switch {
		case !q.full:
		case refs != nil && refs[i].View.Version != 0:
			name = refs[i].View.String() + "__" + name
		case refs != nil:
			name = refs[i].View.Name + "__" + name
		case ofView:
			name = view.Name + "__" + name
		case isInput(r, name):
		default:
			name = r.Version().Name + "__" + name
		}
		if other, twice := taken[name]; twice {
			return &collision{waybill.InvalidField("features["+strconv.Itoa(i)+"]", fmt.Sprintf("has the name %s, and so has features[%d]; set full_feature_names to true, or ask for them one by one", name, other))}
		}
		taken[name] = i
		a.names, a.types, a.places = append(a.names, name), append(a.types, out.Type), append(a.places, i)
	}
	return nil
}

func isInput(r *featurestore.Reader, name string) bool {
	return slices.ContainsFunc(r.Inputs(), func(c featurestore.Column) bool { return c.Name == name })
}

// collision marks the error that Feast has a class of its own for.
type collision struct{ error }

// Unwrap gives the error itself.
func (c *collision) Unwrap() error { return c.error }

// status is a cell's status in Feast's closed set. A value that was served in place of another (a fallback) is present.
// What cannot be sent as a value is null.
func status(s featurestore.Status, null bool) featurestore.Status {
	switch s {
	case featurestore.NotFound, featurestore.OutsideMaxAge:
		return s
	default:
	}
	if null {
		return featurestore.NullValue
	}
	return featurestore.Present
}
