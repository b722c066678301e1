package feast

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"waybill"
	"waybill/featurestore"
)

// answer is what a query found, by columns: the entity columns as they were sent, then the outputs. Its batch must be
// released when it was written.
type answer struct {
	*head
	entities frame
	reader   *featurestore.Reader
	batch    *featurestore.Batch
}

// head says what the outputs of a reader are called.
type head struct {
	names   []string
	json    []byte // the names, as in feature_names
	types   []featurestore.Type
	outputs []int                // of the reader
	views   []waybill.VersionRef // that are read
}

// worth is the status of an output in a row, and the event time (µs) of the row that it is from, 0 for none.
func (a *answer) worth(row, output int) (featurestore.Status, int64) {
	if c := a.batch.Cell(row, output); c != nil {
		if c.Event.IsZero() {
			return c.Status, 0
		}
		return c.Status, c.Event.UnixMicro()
	}
	v := a.reader.Source(output)
	if v < 0 {
		return featurestore.Present, 0
	}
	s, event, seq := a.batch.Hit(row, v)
	if seq == 0 {
		event = 0
	}
	return s, event
}

// read answers a query.
func (d *Door) read(ctx context.Context, tenant waybill.Tenant, q *query) (_ *answer, err error) {
	if q.entities.rows == 0 {
		return nil, waybill.InvalidField("entities", `must have 1 to 1,000 rows; write {"driver_id": [1001, 1002]}`)
	}
	if q.entities.rows > maxRows {
		return nil, waybill.Errorf(waybill.TooLarge, "entities have %d rows; at most %d in one request", q.entities.rows, maxRows)
	}
	var r *featurestore.Reader
	var refs []waybill.FeatureRef
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
	case q.list != nil && len(q.list.refs) > 0:
		refs = q.list.refs
		r, err = d.store.FeaturesReader(ctx, tenant, refs)
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
	a := &answer{entities: q.entities, reader: r}
	if a.head, err = d.head(r, refs, q); err != nil {
		return nil, err
	}
	if a.batch, err = r.Batch(q.entities.rows); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.batch.Release()
		}
	}()
	if err := fill(r, a.batch, &q.entities); err != nil {
		return nil, err
	}
	if err := a.batch.Read(ctx, d.clock()); err != nil {
		return nil, blameEntities(err, q)
	}
	return a, nil
}

// cacheSize is how many entries a cache holds; when it is full it forgets all. Programs ask for few things, again and again.
const cacheSize = 1024

// cache keeps what was made of what came in, so that a request that comes again is not taken apart again. It holds nothing
// that the store does not say, and is bounded.
type cache[K comparable, V any] struct {
	mu sync.RWMutex
	m  map[K]V // guarded by mu
}

func (c *cache[K, V]) get(k K) (V, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, ok := c.m[k]
	return v, ok
}

func (c *cache[K, V]) put(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= cacheSize {
		c.m = make(map[K]V)
	}
	c.m[k] = v
}

// featureList is a list of features, read.
type featureList struct {
	refs      []waybill.FeatureRef
	resources []string // see Resources
}

// maxCachedText is how long a text may be in bytes to be kept.
const maxCachedText = 8 << 10

// asked reads the names of a query and returns what its caller must be allowed to read.
func (d *Door) asked(q *query) ([]string, error) {
	if q.service != "" || len(q.features) == 0 {
		return Resources(q.service, q.features)
	}
	if l, ok := d.lists.get(q.text); ok && q.text != "" {
		q.list = l
		return l.resources, nil
	}
	var l featureList
	var err error
	if l.resources, err = Resources("", q.features); err == nil {
		l.refs, err = references(q.features)
	}
	if q.list = &l; err == nil && q.text != "" && len(q.text) <= maxCachedText {
		d.lists.put(strings.Clone(q.text), &l) // a copy: the body must not live on
	}
	return l.resources, err
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
			ref.View.Name, ref.Feature = strings.Clone(ref.View.Name), strings.Clone(ref.Feature) // kept beyond the body
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// fill gives the batch its inputs. A column that is no input is refused: a misspelt one would be read as null.
func fill(r *featurestore.Reader, b *featurestore.Batch, f *frame) error {
	inputs := r.Inputs()
	for c, name := range f.names {
		at := slices.IndexFunc(inputs, func(in featurestore.Column) bool { return in.Name == name })
		if at < 0 {
			names := make([]string, len(inputs))
			for i, in := range inputs {
				names[i] = in.Name
			}
			return waybill.InvalidField("entities."+clip(name), "is no input of what is asked for; that takes "+strings.Join(names, ", "))
		}
		for i, v := range f.columns[c] {
			b.Set(i, at, incoming(inputs[at].Type, v))
		}
	}
	return nil
}

// incoming turns a value of the protocol into one that the store takes: times come as seconds since 1970, alone or in lists.
// A number of more digits than a float64 keeps stays text for a decimal, which is exact.
func incoming(t featurestore.Type, v any) any {
	if list, ok := v.([]any); ok {
		elem := featurestore.Type("")
		switch t {
		case "list<timestamp>":
			elem = featurestore.Timestamp
		case "list<decimal>":
			elem = featurestore.DecimalT
		default: // the elements are as they came
		}
		out := make([]any, len(list))
		for i, x := range list {
			out[i] = incoming(elem, x)
		}
		return out
	}
	if n, ok := v.(json.Number); ok {
		if t == featurestore.DecimalT {
			return n.String()
		}
		x, err := n.Float64()
		if err != nil { // cannot be: the scanner has read it
			return n.String()
		}
		v = x
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

// headKey is what a head depends on, but for the entity columns.
type headKey struct {
	reader *featurestore.Reader
	full   bool
}

// head names the outputs: feature, or view__feature where full names are asked for. In a list of features the version that
// was asked for is part of the view's name (view@v2__feature), as in Feast. An expression's view is the service. An output
// that is an entity column of the request is there already.
func (d *Door) head(r *featurestore.Reader, refs []waybill.FeatureRef, q *query) (*head, error) {
	key := headKey{r, q.full}
	if h, ok := d.heads.get(key); ok {
		return h, nil
	}
	h := &head{}
	byName := map[string]waybill.VersionRef{} // of the features of a service
	for i, f := range r.Features() {
		ref, err := waybill.ParseFeatureRef("features["+strconv.Itoa(i)+"]", f)
		if err != nil {
			return nil, err
		}
		if byName[ref.Feature] = ref.View; !slices.Contains(h.views, ref.View) {
			h.views = append(h.views, ref.View)
		}
	}
	always := true // whatever the entity columns are
	taken := map[string]int{}
	for i, out := range r.Outputs() {
		view, ofView := byName[out.Name]
		input := !ofView && isInput(r, out.Name)
		always = always && !input
		if input && slices.Contains(q.entities.names, out.Name) {
			continue
		}
		name := out.Name
		switch {
		case !q.full || input:
		case refs != nil && refs[i].View.Version != 0:
			name = refs[i].View.String() + "__" + name
		case refs != nil:
			name = refs[i].View.Name + "__" + name
		case ofView:
			name = view.Name + "__" + name
		default:
			name = r.Version().Name + "__" + name
		}
		if other, twice := taken[name]; twice {
			return nil, &collision{waybill.InvalidField("features["+strconv.Itoa(i)+"]", fmt.Sprintf("has the name %s, and so has features[%d]; set full_feature_names to true, or ask for them one by one", name, other))}
		}
		taken[name] = i
		if len(h.names) > 0 {
			h.json = append(h.json, ',')
		}
		h.json = appendText(h.json, name)
		h.names, h.types, h.outputs = append(h.names, name), append(h.types, out.Type), append(h.outputs, i)
	}
	if always {
		d.heads.put(key, h)
	}
	return h, nil
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
