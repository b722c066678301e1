package featurestore_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/pg"
	"waybill/lineage"
)

// packageDir is taken before any test starts the S3 gateway, which changes the working directory of the process.
var packageDir, _ = os.Getwd()

var updateGolden = flag.Bool("update", false, "write the golden files anew")

// consume records what registry and decision would: models built for a service, and revisions of an endpoint that read it.
func (b *bundle) consume(t testing.TB, service waybill.VersionRef, nodes ...lineage.Node) {
	t.Helper()
	err := pg.InTx(context.Background(), b.pool, func(tx pgx.Tx) error {
		for _, n := range nodes {
			kind := lineage.Reads
			if n.Kind() == "model" {
				kind = lineage.Defines
			}
			if err := lineage.Record(context.Background(), tx, "acme", b.now, lineage.Edge{From: lineage.ServiceNode(service), To: n, Kind: kind}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

const rich = `
kind: View
name: category_load
entity: {name: category, keys: [{name: category, type: string}]}
features: [{name: demand, type: float64}]
---
kind: View
name: sku_load
owner: planning@example.com
description: Demand of a SKU
tags: {team: planning}
external: {source: the till, license: own, fetch_time: event_time}
entity: {name: sku, keys: [{name: sku, type: string, pattern: "SKU-[0-9]+"}]}
ttl: 6h
features:
  - {name: demand, type: float64, min: 0}
  - {name: units, type: int64, description: sold}
  - {name: band, type: string, values: [a, b], max_length: 8, sensitivity: personal}
expressions: [{name: per_unit, type: float64, expr: "demand / double(units)"}]
fallback: {view: category_load}
---
kind: Service
name: demand
inputs: [{name: sku, type: string}, {name: category, type: string}, {name: days, type: float64}]
features: ["sku_load@latest:demand", "sku_load@latest:units"]
expressions: [{name: total, type: float64, expr: "demand * days"}]
outputs: [total, demand]
`

// TestPlan_SaysInWords keeps the words in testdata/plan.txt, one block for each edit of the definitions above.
func TestPlan_SaysInWords(t *testing.T) {
	t.Parallel()
	b := withTokens(t)
	b.apply(t, rich)
	b.consume(t, waybill.VersionRef{Name: "demand", Version: 1}, "model:forecast@v1", "endpoint:demand@v1", "endpoint:demand@v2", "endpoint:stock@v7")
	var out strings.Builder
	for _, c := range []struct {
		name  string
		edits []string
	}{
		{"nothing", nil},
		{"owner, description, tags, source", []string{"planning@example.com", "stock@example.com", "Demand of a SKU", "Demand of a SKU by day", "{team: planning}", "{team: stock, tier: gold}", "the till", "the new till", "description: sold", "description: sold by day"}},
		{"ttl", []string{"ttl: 6h", "ttl: 12h"}},
		{"no ttl", []string{"ttl: 6h", "ttl: 0s"}},
		{"features", []string{"type: float64, min: 0}", "type: float64, min: 1, max: 9, required: true}", "  - {name: units, type: int64, description: sold}\n", "  - {name: staff, type: int32}\n", "demand / double(units)", "demand / double(staff)", "sku_load@latest:units", "sku_load@latest:staff"}},
		{"retyped", []string{"units, type: int64", "units, type: int32"}},
		{"order", []string{"  - {name: demand, type: float64, min: 0}\n  - {name: units, type: int64, description: sold}\n", "  - {name: units, type: int64, description: sold}\n  - {name: demand, type: float64, min: 0}\n"}},
		{"key", []string{"pattern: \"SKU-[0-9]+\"}]", "pattern: \"SKU-[0-9]{4}\"}, {name: category, type: string}]", "name: sku, keys", "name: sku_of_category, keys"}},
		{"constraints", []string{"values: [a, b], max_length: 8, sensitivity: personal", "values: [a, b, c], pattern: \"[a-z]\", sensitivity: secret"}},
		{"expressions", []string{"demand / double(units)", "demand / (1.0 + double(units))", "demand * days", "demand * days * 2.0"}},
		{"fallback", []string{"fallback: {view: category_load}", "fallback: {view: category_load@v1, keys: {category: \"sku + '!'\"}}"}},
		{"no fallback", []string{"fallback: {view: category_load}\n", ""}},
		{"parent", []string{"features: [{name: demand, type: float64}]", "features: [{name: demand, type: float64}, {name: units, type: int64}]"}},
		{"service", []string{"{name: days, type: float64}", "{name: days, type: int64}", "demand * days", "demand * double(days)", ", \"sku_load@latest:units\"", ", \"sku_load@latest:band\"", "[total, demand]", "[total, band]"}},
	} {
		yaml := strings.NewReplacer(c.edits...).Replace(rich)
		d, err := featurestore.ParseDefinitions([]byte(yaml))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		changes, err := b.store.Plan(context.Background(), ann, d)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		fmt.Fprintf(&out, "# %s\n", c.name)
		for _, c := range changes {
			fmt.Fprintln(&out, c.Summary)
			for _, d := range c.Details {
				fmt.Fprintln(&out, "    "+d)
			}
			if len(c.Readers) > 0 {
				fmt.Fprintln(&out, "    still reads the version before: "+strings.Join(c.Readers, ", "))
			}
		}
		fmt.Fprintln(&out)
	}
	file := filepath.Join(packageDir, "testdata", "plan.txt")
	if *updateGolden {
		if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("the words differ (-want +got); run with -update if they should:\n%s", diff)
	}
}

// Whatever is edited: there are words about what a reader could notice exactly when there is a new version, and words
// about the rest exactly when the text differs otherwise.
func TestDifferences_AreThoseThatMakeAVersion(t *testing.T) {
	t.Parallel()
	name := rapid.SampledFrom([]string{"a", "b", "c"})
	text := rapid.SampledFrom([]string{"", "one", "two", strings.Repeat("long ", 20) + "1", strings.Repeat("long ", 20) + "2"})
	bound := rapid.Custom(func(t *rapid.T) *float64 {
		if rapid.Bool().Draw(t, "unbounded") {
			return nil
		}
		x := float64(rapid.IntRange(0, 2).Draw(t, "bound"))
		return &x
	})
	column := rapid.Custom(func(t *rapid.T) featurestore.Column {
		c := featurestore.Column{Name: name.Draw(t, "name"), Type: rapid.SampledFrom([]featurestore.Type{featurestore.Int64, featurestore.String}).Draw(t, "type"),
			Sensitivity: rapid.SampledFrom([]string{"", "none", "personal", "secret"}).Draw(t, "sensitivity"), Description: text.Draw(t, "description"), Required: rapid.Bool().Draw(t, "required"),
			Min: bound.Draw(t, "min"), Max: bound.Draw(t, "max"), MaxLength: rapid.IntRange(0, 1).Draw(t, "length")}
		if rapid.Bool().Draw(t, "values") {
			c.Values = rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y"}), 1, 20).Draw(t, "list")
		}
		if s := rapid.SampledFrom([]string{"", "a+", "b+"}).Draw(t, "pattern"); s != "" {
			c.Pattern = new(featurestore.Pattern)
			if err := c.Pattern.UnmarshalText([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		return c
	})
	columns := rapid.SliceOfNDistinct(column, 1, 3, func(c featurestore.Column) string { return c.Name })
	expression := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) featurestore.Expression {
		return featurestore.Expression{Name: name.Draw(t, "name"), Type: featurestore.Int64, Expr: rapid.SampledFrom([]string{"a", "a + 1"}).Draw(t, "expr")}
	}), 0, 2, func(e featurestore.Expression) string { return e.Name })
	tags := rapid.MapOfN(name, text, 0, 2)
	view := rapid.Custom(func(t *rapid.T) featurestore.View {
		v := featurestore.View{Kind: "View", Name: "v", Owner: text.Draw(t, "owner"), Description: text.Draw(t, "about"), Tags: tags.Draw(t, "tags"), External: tags.Draw(t, "external"),
			Entity: featurestore.Entity{Name: name.Draw(t, "entity"), Keys: columns.Draw(t, "keys")}, TTL: rapid.SampledFrom([]string{"", "0s", "60m", "1h", "2h"}).Draw(t, "ttl"),
			Features: columns.Draw(t, "features"), Expressions: expression.Draw(t, "expressions")}
		if rapid.Bool().Draw(t, "falls") {
			v.Fallback = &featurestore.Fallback{View: rapid.SampledFrom([]string{"p@v1", "p@v2"}).Draw(t, "parent"), Keys: rapid.MapOfN(name, rapid.SampledFrom([]string{"a", "b"}), 0, 2).Draw(t, "by")}
		}
		return v
	})
	service := rapid.Custom(func(t *rapid.T) featurestore.Service {
		features := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"v@v1:a", "v@v2:a", "v@v1:b", "w@v1:c"}), 0, 3, func(s string) string { return s[len(s)-1:] })
		return featurestore.Service{Kind: "Service", Name: "s", Owner: text.Draw(t, "owner"), Description: text.Draw(t, "about"), Tags: tags.Draw(t, "tags"), Inputs: columns.Draw(t, "inputs"),
			Features: features.Draw(t, "features"), Expressions: expression.Draw(t, "expressions"), Outputs: rapid.SliceOfNDistinct(name, 0, 3, rapid.ID).Draw(t, "outputs")}
	})
	check := func(t *rapid.T, a, b any, same bool, essential, said []string) {
		if same == (len(essential) > 0) {
			t.Fatalf("the essence is the same: %v; words: %q\n%+v\n%+v", same, essential, a, b)
		}
		if identical := cmp.Equal(a, b, cmp.Comparer(func(a, b *featurestore.Pattern) bool {
			return (a == nil) == (b == nil) && (a == nil || a.String() == b.String())
		})); identical && len(said) > 0 {
			t.Fatalf("nothing differs; words: %q", said)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := view.Draw(t, "old"), view.Draw(t, "new")
		if rapid.Bool().Draw(t, "little") { // most edits are small
			c := a
			switch rapid.IntRange(0, 5).Draw(t, "which") {
			case 0:
				c.Features = b.Features
			case 1:
				c.TTL = b.TTL
			case 2:
				c.Fallback = b.Fallback
			case 3:
				c.Expressions = b.Expressions
			case 4:
				c.Entity = b.Entity
			case 5:
				c.Tags, c.Description, c.External = b.Tags, b.Description, b.External
			}
			b = c
		}
		same, essential, said := featurestore.DifferencesOfViews(a, b)
		check(t, a, b, same, essential, said)
		x, y := service.Draw(t, "old service"), service.Draw(t, "new service")
		same, essential, said = featurestore.DifferencesOfServices(x, y)
		check(t, x, y, same, essential, said)
	})
}

// Every edit leaves a revision with its digest, author and reason.
func TestApply_KeepsEveryEdit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, strings.Replace(definitions, "ops@", "floor@", 1))
	b.apply(t, strings.Replace(definitions, "6h", "12h", 1))
	rows, err := b.pool.Query(context.Background(), "SELECT version, revision, digest, author, reason FROM featurestore.definition WHERE kind = 'view' ORDER BY version, revision")
	if err != nil {
		t.Fatal(err)
	}
	type kept struct {
		Version, Revision      int
		Digest, Author, Reason string
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[kept])
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	digests := map[string]bool{}
	for i, want := range [][2]int{{1, 1}, {1, 2}, {2, 1}} {
		k := list[i]
		if k.Version != want[0] || k.Revision != want[1] || k.Author != "ann" || k.Reason != "a test" || !strings.HasPrefix(k.Digest, "sha256:") || len(k.Digest) != 71 || digests[k.Digest] {
			t.Errorf("%+v, want version and revision %v of ann with a digest of its own", k, want)
		}
		digests[k.Digest] = true
	}
}
