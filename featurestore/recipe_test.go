package featurestore_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/featurestore"
)

func (b *bundle) trainingSet(name string, version int, label, spine string) (featurestore.TrainingSet, error) {
	return b.store.CreateTrainingSet(context.Background(), ann, featurestore.TrainingSetRequest{Name: name, Service: waybill.VersionRef{Name: "route-risk", Version: version},
		Format: featurestore.CSV, TimeColumn: "at", LabelColumn: label, Spine: strings.NewReader(spine)})
}

// A column of the spine never takes the place of a value as of the row's time.
func TestTrainingSet_SpineNamedLikeAFeature(t *testing.T) {
	t.Parallel()
	b := setup(t)
	at := b.now.Format(time.RFC3339)
	for _, c := range []struct{ name, label, spine string }{
		{"queue", "", "warehouse,km,at,queue\nny,2," + at + ",0.9\n"},
		{"pressure", "", "warehouse,km,at,pressure\nny,2," + at + ",0.9\n"},
		{"staff", "staff", "warehouse,km,at,staff\nny,2," + at + ",1\n"}, // the label would be its own feature
	} {
		if set, err := b.trainingSet("x", 0, c.label, c.spine); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%s: %+v, %v", c.name, set, err)
		}
	}
	if _, err := b.trainingSet("x", 0, "late", "warehouse,km,at,late,note\nny,2,"+at+",1,anything else\n"); err != nil {
		t.Errorf("inputs, time, label and a column of its own: %v", err)
	}
}

// Recipes that give the same values give other training sets, and each is what was asked for.
func TestTrainingSet_DigestBindsTheRecipe(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, strings.Replace(definitions, "queue * km", "km * queue", 1)) // version 2 computes the same
	spine := "warehouse,km,at,late\nny,2," + b.now.Format(time.RFC3339) + ",1\n"
	seen := map[string]string{}
	for _, c := range []struct {
		name    string
		version int
		label   string
	}{{"a", 1, "late"}, {"a", 2, "late"}, {"b", 1, "late"}, {"a", 1, "km"}} {
		set, err := b.trainingSet(c.name, c.version, c.label, spine)
		if err != nil {
			t.Fatal(err)
		}
		if set.Name != c.name || set.Service.Version != c.version || set.LabelColumn != c.label {
			t.Errorf("asked for %+v, got %s of %s with label %s", c, set.Name, set.Service, set.LabelColumn)
		}
		if was, ok := seen[set.Digest]; ok {
			t.Errorf("%+v has the digest of %s", c, was)
		}
		seen[set.Digest] = fmt.Sprint(c)
		if again, err := b.trainingSet(c.name, c.version, c.label, spine); err != nil || again.Digest != set.Digest {
			t.Errorf("the same recipe again: %s and %s, %v", set.Digest, again.Digest, err)
		}
		if r, err := b.store.RebuildTrainingSet(ctx, ann, set.Digest); err != nil || !r.Equal {
			t.Errorf("rebuild: %+v, %v", r, err)
		}
	}
}

// Labels that are no finite number name their row; large ones have finite statistics.
func TestTrainingSet_Labels(t *testing.T) {
	t.Parallel()
	b := setup(t)
	at := b.now.Format(time.RFC3339)
	spine := func(labels ...string) string {
		out := "warehouse,km,at,late\n"
		for _, l := range labels {
			out += "ny,2," + at + "," + l + "\n"
		}
		return out
	}
	for _, l := range []string{"inf", "-Infinity", "1e400"} {
		if _, err := b.trainingSet("x", 0, "late", spine("1", l)); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "line 3, late") {
			t.Errorf("%s: %v", l, err)
		}
	}
	set, err := b.trainingSet("x", 0, "late", spine("1.7976931348623157e308", "-1.7976931348623157e308", "nan", ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range set.Columns {
		if c.Name == "late" && (c.Type != featurestore.Float64 || c.Nulls != 2 || c.Mean != 0 || math.Abs(c.Std/math.MaxFloat64-1) > 1e-9) {
			t.Errorf("%+v", c)
		}
	}
	if _, err := b.trainingSet("x", 0, "late", "warehouse,km,at,late\nny,1e308,"+at+",1\nny,-1e308,"+at+",1\n"); err != nil {
		t.Errorf("large inputs: %v", err)
	}
	if _, err := b.trainingSet("x", 0, "late", spine("yes", "no\x00")); err != nil {
		t.Errorf("text labels: %v", err)
	}
	if _, err := b.trainingSet("x", 0, "la\x00te", "warehouse,km,at,la\x00te\nny,2,"+at+",1\n"); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("a name that Postgres cannot hold: %v", err)
	}
	if _, err := b.push("a\x00b", load("ny", b.now, 0.1)); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("a batch id that Postgres cannot hold: %v", err)
	}
}

// What is only said about a column, and the same time-to-live written otherwise, leave the version and its log.
func TestApply_WordsAreRevisions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct{ name, yaml, want string }{
		{"Feature", strings.Replace(definitions, "name: queue, type: float64,", "name: queue, type: float64, description: share of the dock in use,", 1), "revision warehouse_load@v1, none route-risk@v1"},
		{"TTL", strings.Replace(definitions, "6h", "360m", 1), "revision warehouse_load@v1, none route-risk@v1"},
		{"Input", strings.Replace(definitions, "name: km, type: float64", "name: km, type: float64, description: by road", 1), "revision warehouse_load@v1, revision route-risk@v1"},
		{"Bounds", strings.Replace(definitions, "max: 1}", "max: 2}", 1), "version warehouse_load@v2, version route-risk@v2"},
	} {
		if got := actions(b.apply(t, c.yaml)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// A number in JSON is exact below 2^53 only; beyond, text is.
func TestPush_WholeNumbersAreExact(t *testing.T) {
	t.Parallel()
	b := setup(t)
	row := load("ny", b.now, 0.1)
	for i, x := range []any{float64(1 << 53), -float64(1 << 53), 1e18} {
		row["staff"] = x
		if _, err := b.push(fmt.Sprint("wrong", i), row); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "as text") {
			t.Errorf("%v: %v", x, err)
		}
	}
	for i, x := range []any{float64(1<<53 - 1), "9007199254740993"} {
		row["staff"] = x
		if _, err := b.push(fmt.Sprint("right", i), row); err != nil {
			t.Errorf("%v: %v", x, err)
		}
	}
	if cells := b.read(t, b.open(t), "ny"); cells[1].Value != int64(9007199254740993) {
		t.Errorf("%+v", cells[1])
	}
}

// counter counts statements that read all services.
type counter struct{ services atomic.Int64 }

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, "LEFT JOIN featurestore.retirement") {
		c.services.Add(1)
	}
	return ctx
}

func (c *counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// The services are parsed once for a page of views, not once for each view.
func TestViews_ParseServicesOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, twoViews)
	cfg, seen := b.pool.Config(), &counter{}
	cfg.ConnConfig.Tracer = seen
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s, err := featurestore.Open(ctx, pool, b.bucket, featurestore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	views, _, err := s.Views(ctx, "acme", featurestore.Page{})
	if err != nil || len(views) != 2 || fmt.Sprint(views[0].Consumers) != "[weather@v1]" || fmt.Sprint(views[1].Consumers) != "[route-risk@v1]" {
		t.Fatalf("%+v, %v", views, err)
	}
	if n := seen.services.Load(); n != 1 {
		t.Errorf("the services were read %d times for %d views", n, len(views))
	}
}
