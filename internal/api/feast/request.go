package feast

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"waybill"
)

// Bounds of a request, those of our own API.
const (
	maxRows     = 1000   // entities of a read
	maxFeatures = 1000   // of a read
	maxColumns  = 1100   // entity columns or columns of a frame: ten join keys, a thousand features, times
	maxFrame    = 10_000 // rows of a write
)

// frame is a table by columns of equal length. Values are what scanner.value gives.
type frame struct {
	names   []string
	columns [][]any
	rows    int
}

// frame reads {"name": [values], …}, of at most most rows.
func (s *scanner) frame(field string, most int) (f frame, err error) {
	if s.next() != '{' {
		return f, waybill.InvalidField(field, `must be an object of columns; write {"driver_id": [1001, 1002]}`)
	}
	err = s.object(func(name string) error {
		at := field + "." + clip(name)
		if slices.Contains(f.names, name) {
			return waybill.InvalidField(at, "is there twice; give every column once")
		}
		if len(f.names) == maxColumns {
			return waybill.Errorf(waybill.TooLarge, "%s has more than %d columns", field, maxColumns)
		}
		if s.next() != '[' {
			return waybill.InvalidField(at, "must be a list with one value per row")
		}
		column := make([]any, 0, min(f.rows, most))
		err := s.array(func() error {
			if len(column) == most {
				return waybill.Errorf(waybill.TooLarge, "%s has more than %d rows, and that is the most in one request; send the rest in another", at, most)
			}
			v, err := s.value(0)
			column = append(column, v)
			return err
		})
		if err != nil {
			return err
		}
		f.names, f.columns = append(f.names, name), append(f.columns, column)
		f.rows = len(f.columns[0])
		return nil
	})
	if err != nil {
		return f, err
	}
	return f, f.even(field)
}

// even refuses columns of different lengths.
func (f *frame) even(field string) error {
	for i, c := range f.columns {
		if len(c) != f.rows {
			return waybill.InvalidField(field+"."+clip(f.names[i]), fmt.Sprintf("has %d rows, but %s.%s has %d; give every column as many", len(c), field, clip(f.names[0]), f.rows))
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	q := strconv.QuoteToGraphic(strings.ToValidUTF8(s, "\uFFFD"))
	return q[1 : len(q)-1]
}

// query is one online read.
type query struct {
	service  string
	features []string
	text     string // what the features were read from; "" over gRPC
	list     *featureList
	full     bool // names are view__feature
	versions bool // gRPC only: tell which version of each view answered
	entities frame
}

// parseQuery reads the body of POST /get-online-features. What it does not know is skipped: clients of other versions
// send more.
func parseQuery(text string) (q query, err error) {
	s, err := newScanner(text)
	if err != nil {
		return q, err
	}
	var seen once
	if err := s.object(func(name string) (err error) {
		if err := seen.add(name); err != nil {
			return err
		}
		null := s.next() == 'n'
		switch {
		case name == "feature_service" && !null:
			q.service, err = s.string()
		case name == "features" && !null:
			from := s.at
			q.features, err = s.texts("features", maxFeatures)
			q.text = s.text[from:s.at]
		case name == "full_feature_names" && !null:
			q.full, err = s.bool()
		case name == "entities":
			q.entities, err = s.frame("entities", maxRows)
		default:
			err = s.skip(1)
		}
		return err
	}); err != nil {
		return q, err
	}
	return q, s.end()
}

// once refuses a name of a body's object that is there twice: which of the two counts is not ours to guess.
type once []string

// maxNames is how many names a body's object may have; Feast's clients send up to eight.
const maxNames = 64

func (o *once) add(name string) error {
	if slices.Contains(*o, name) {
		return waybill.InvalidField(clip(name), "is there twice; give it once")
	}
	if len(*o) == maxNames {
		return waybill.Errorf(waybill.TooLarge, "the body has more than %d names", maxNames)
	}
	*o = append(*o, name)
	return nil
}

// texts reads a list of texts.
func (s *scanner) texts(field string, most int) (list []string, err error) {
	if s.next() != '[' {
		return nil, waybill.InvalidField(field, "must be a list of texts")
	}
	list = make([]string, 0, 64)
	err = s.array(func() error {
		if len(list) == most {
			return waybill.Errorf(waybill.TooLarge, "%s has more than %d entries", field, most)
		}
		t, err := s.string()
		list = append(list, t)
		return err
	})
	return list, err
}

// write is rows for one view.
type write struct {
	view string // push source or view
	to   string
	df   frame
}

// parseWrite reads the body of POST /push and /write-to-online-store, which names the view in field.
func parseWrite(text, field string) (w write, err error) {
	s, err := newScanner(text)
	if err != nil {
		return w, err
	}
	var seen once
	if err := s.object(func(name string) (err error) {
		if err := seen.add(name); err != nil {
			return err
		}
		switch name {
		case field:
			w.view, err = s.string()
		case "to":
			w.to, err = s.string()
		case "df":
			w.df, err = s.frame("df", maxFrame)
		default:
			err = s.skip(1)
		}
		return err
	}); err != nil {
		return w, err
	}
	return w, s.end()
}

// period is what POST /materialize and /materialize-incremental ask for.
type period struct {
	start, end string
	views      []string
	named      bool // views were given
	noTimes    bool // disable_event_timestamp
	version    string
}

func parsePeriod(text string) (p period, err error) {
	s, err := newScanner(text)
	if err != nil {
		return p, err
	}
	var seen once
	if err := s.object(func(name string) (err error) {
		if err := seen.add(name); err != nil {
			return err
		}
		if s.next() == 'n' {
			return s.skip(1)
		}
		switch name {
		case "start_ts":
			p.start, err = s.string()
		case "end_ts":
			p.end, err = s.string()
		case "feature_views":
			p.named = true
			p.views, err = s.texts("feature_views", maxFeatures)
		case "disable_event_timestamp":
			p.noTimes, err = s.bool()
		case "version":
			p.version, err = s.string()
		default:
			err = s.skip(1)
		}
		return err
	}); err != nil {
		return p, err
	}
	return p, s.end()
}

// reference reads a feature as Feast clients write it. "view.v2:feature" is how the registry file writes "view@v2:feature"
// for clients whose names cannot have an @; our names have no point, so nothing else can be meant.
func reference(field, text string) (ref waybill.FeatureRef, err error) {
	view, feature, found := strings.Cut(text, ":")
	if name, version, dotted := strings.Cut(view, "."); found && dotted {
		text = name + "@" + version + ":" + feature
	}
	return waybill.ParseFeatureRef(field, text)
}

// Resources are what a caller must be allowed to read for an online read: the service, or every view that a feature is
// of. A name that is none is an Invalid error.
func Resources(service string, features []string) ([]string, error) {
	if service != "" {
		ref, err := waybill.ParseVersionRef("feature_service", service)
		return []string{"service/" + ref.Name}, err
	}
	var out []string
	last := ""
	for i, f := range features {
		view, _, _ := strings.Cut(f, ":")
		if i > 0 && view == last { // features of a view stand together
			continue
		}
		last = view
		ref, err := reference("features["+strconv.Itoa(i)+"]", f)
		if err != nil {
			return nil, err
		}
		if name := "view/" + ref.View.Name; !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}
