package featurestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"waybill"
)

// ablationPrefix is where the manifests of ablations lie.
const ablationPrefix = "featurestore/ablations"

// maxGroups bounds the variants that one call makes.
const maxGroups = 64

// AblationGroup is what one variant goes without: features, and every expression that reads one of them.
type AblationGroup struct {
	Name     string   `json:"name"`
	Features []string `json:"features,omitempty"` // "view:feature", "view@v1:feature" or a feature's own name; none: all of the view called Name
}

// Variant is a training set without one group.
type Variant struct {
	Group string
	TrainingSet
}

// Ablation is a training set and its variants: the same rows and labels, each without one group of features.
type Ablation struct {
	Digest   string // hex SHA-256 of Manifest
	Manifest []byte // JSON that names the base and every variant with what it goes without
	Base     TrainingSet
	Variants []Variant
}

// manifest of an ablation, as it is written.
type ablationManifest struct {
	Base     string            `json:"base"` // digest
	Service  string            `json:"service"`
	Spine    string            `json:"spine"`
	Kernel   string            `json:"kernel"`
	Rows     int64             `json:"rows"`
	Variants []ablationVariant `json:"variants"`
}

type ablationVariant struct {
	Group   string   `json:"group"`
	Without []string `json:"without"` // columns
	Digest  string   `json:"digest"`
	Columns int      `json:"columns"`
}

// AblateTrainingSet makes the variants of a training set that go without one group of features each, so that it can be seen
// what a signal is worth before it is relied on. No groups means one for every view. Every variant is a training set like
// any other: with its recipe, its leaf in the log and its lineage. The join is done once; the same call finds what it made
// before. With Config.Submit the work is a build's (StartAblation), as that of CreateTrainingSet is. Errors: Invalid when a
// group names nothing of the set, Conflict when the set was made by another kernel.
func (s *Store) AblateTrainingSet(ctx context.Context, actor waybill.Actor, digest string, groups []AblationGroup) (Ablation, error) {
	if s.submit != nil {
		b, err := s.StartAblation(ctx, actor, digest, groups)
		if err == nil {
			b, err = s.awaitBuild(ctx, actor.Tenant, b)
		}
		if err != nil {
			return Ablation{}, err
		}
		return s.Ablated(ctx, actor.Tenant, b)
	}
	base, err := s.ablatable(ctx, actor.Tenant, digest, groups)
	if err != nil {
		return Ablation{}, err
	}
	return s.ablate(ctx, actor, base, groups)
}

// StartAblation begins what AblateTrainingSet does and does not wait for it; what came of it, Ablated says. Who asks for what
// is being made already gets that build. Errors beside AblateTrainingSet's, of which those about what is in the set are the
// build's: Exhausted when the tenant has too many builds.
func (s *Store) StartAblation(ctx context.Context, actor waybill.Actor, digest string, groups []AblationGroup) (Build, error) {
	base, err := s.ablatable(ctx, actor.Tenant, digest, groups)
	if err != nil {
		return Build{}, err
	}
	return s.startBuild(ctx, actor, &order{kind: BuildAblate, set: &base, base: base.Digest, groups: groups})
}

// Ablated is what came of an ablation that is done. Errors: Conflict for other builds.
func (s *Store) Ablated(ctx context.Context, tenant waybill.Tenant, b Build) (a Ablation, err error) {
	if b.Kind != BuildAblate || b.State != BuildDone {
		return a, waybill.Errorf(waybill.Conflict, "build %s is no ablation that is done", b.ID)
	}
	if a.Manifest, err = s.object(ctx, ablationPrefix+"/"+b.Digest); err != nil {
		return a, err
	}
	var m ablationManifest
	if err := json.Unmarshal(a.Manifest, &m); err != nil {
		return a, waybill.Wrap(waybill.Corrupt, err, "the manifest "+b.Digest+" cannot be read")
	}
	a.Digest = b.Digest
	if a.Base, err = s.TrainingSet(ctx, tenant, m.Base); err != nil {
		return a, err
	}
	for _, v := range m.Variants {
		t, err := s.TrainingSet(ctx, tenant, v.Digest)
		if err != nil {
			return a, err
		}
		a.Variants = append(a.Variants, Variant{v.Group, t})
	}
	return a, nil
}

// ablatable refuses what is wrong with groups whatever is in the set.
func (s *Store) ablatable(ctx context.Context, tenant waybill.Tenant, digest string, groups []AblationGroup) (base TrainingSet, err error) {
	if base, err = s.TrainingSet(ctx, tenant, digest); err != nil {
		return base, err
	}
	if !knownKernel(base.Kernel) {
		return base, waybill.Errorf(waybill.Conflict, "training set %s was made by kernel %q and this hub has %q: make it again first", digest, base.Kernel, kernel)
	}
	if len(groups) > maxGroups {
		return base, waybill.InvalidField("groups", fmt.Sprintf("are %d; at most %d at once", len(groups), maxGroups))
	}
	for i, g := range groups {
		field := "groups[" + strconv.Itoa(i) + "]"
		switch {
		case g.Name == "" || len(g.Name) > 128 || !storable(g.Name):
			return base, waybill.InvalidField(field+".name", "must name the group in 1 to 128 bytes of text")
		case slices.ContainsFunc(groups[:i], func(o AblationGroup) bool { return o.Name == g.Name }):
			return base, waybill.InvalidField(field+".name", strconv.QuoteToGraphic(g.Name)+" is taken by another group")
		case len(g.Features) > maxColumns:
			return base, waybill.InvalidField(field+".features", "are more than there can be")
		}
		for k, f := range g.Features {
			if len(f) > 512 || !storable(f) {
				return base, waybill.InvalidField(field+".features["+strconv.Itoa(k)+"]", strconv.QuoteToGraphic(short(f))+" is no feature of the set")
			}
		}
	}
	return base, nil
}

// storable says whether Postgres can hold a text.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// ablate makes the variants, one after the other; those that are there already are found.
func (s *Store) ablate(ctx context.Context, actor waybill.Actor, base TrainingSet, groups []AblationGroup) (Ablation, error) {
	spine, err := s.object(ctx, spinePrefix+"/"+base.Spine)
	if err != nil {
		return Ablation{}, err
	}
	j, err := s.join(ctx, actor.Tenant, &base, spine)
	if err != nil {
		return Ablation{}, err
	}
	if len(groups) == 0 {
		groups = j.viewGroups()
	}
	a := Ablation{Base: base}
	m := ablationManifest{Base: base.Digest, Service: base.Service.String(), Spine: base.Spine, Kernel: base.Kernel, Rows: base.Rows}
	for i, g := range groups { // all before anything is made of one
		without, err := j.columnsOf("groups["+strconv.Itoa(i)+"]", g)
		if err != nil {
			return Ablation{}, err
		}
		m.Variants = append(m.Variants, ablationVariant{Group: g.Name, Without: without})
	}
	buildingOf(ctx).files(len(groups))
	for i := range m.Variants {
		v := &m.Variants[i]
		t := base
		t.Without = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(base.Without), v.Without...))))
		t.Author, t.CreatedAt = actor.ID, s.clock()
		made, err := s.sameRecipe(ctx, actor.Tenant, &t)
		if err == nil && made.Digest == "" {
			made, err = s.store(ctx, actor, &t, j.without(v.Without), nil)
		}
		if err != nil {
			return Ablation{}, fmt.Errorf("make the variant without %s: %w", v.Group, err)
		}
		buildingOf(ctx).next()
		v.Digest, v.Columns = made.Digest, len(made.Columns)
		a.Variants = append(a.Variants, Variant{v.Group, made})
	}
	if a.Manifest, err = json.MarshalIndent(m, "", "  "); err != nil {
		return Ablation{}, fmt.Errorf("marshal manifest: %w", err)
	}
	sum := sha256.Sum256(a.Manifest)
	a.Digest = hex.EncodeToString(sum[:])
	if err := buildingOf(ctx).moveOn(ctx); err != nil {
		return Ablation{}, err
	}
	if _, err := s.bucket.PutContent(ctx, ablationPrefix, bytes.NewReader(a.Manifest)); err != nil {
		return Ablation{}, err
	}
	return a, nil
}

// viewGroups is a group for every view that the set has features of.
func (j *joined) viewGroups() (out []AblationGroup) {
	for _, from := range j.from {
		for _, f := range from {
			if !slices.ContainsFunc(out, func(g AblationGroup) bool { return g.Name == f.View.Name }) {
				out = append(out, AblationGroup{Name: f.View.Name})
			}
		}
	}
	return out
}

// columnsOf are the columns that are gone without a group: its features and what is computed from them.
func (j *joined) columnsOf(field string, g AblationGroup) ([]string, error) {
	names := func(f waybill.FeatureRef, text string) bool {
		return text == f.Feature || text == f.String() || text == f.View.Name+":"+f.Feature
	}
	var features []waybill.FeatureRef
	if len(g.Features) == 0 {
		for _, f := range slices.Concat(j.from...) {
			if g.Name == f.View.Name || g.Name == f.View.String() {
				features = append(features, f)
			}
		}
		if len(features) == 0 {
			return nil, waybill.InvalidField(field+".name", strconv.QuoteToGraphic(short(g.Name))+" is no view that the set has features of; list the group's features or name a view")
		}
	}
	for i, text := range g.Features {
		n := len(features)
		for _, f := range slices.Concat(j.from...) {
			if names(f, text) {
				features = append(features, f)
			}
		}
		if len(features) == n {
			return nil, waybill.InvalidField(field+".features["+strconv.Itoa(i)+"]", strconv.QuoteToGraphic(short(text))+" is no feature of the set")
		}
	}
	var out []string
	for c, from := range j.from {
		if slices.ContainsFunc(from, func(f waybill.FeatureRef) bool { return slices.Contains(features, f) }) {
			out = append(out, j.columns[c].Name)
		}
	}
	return out, nil
}

// without returns the set without some columns.
func (j *joined) without(names []string) *joined {
	out := &joined{rows: j.rows}
	for c := range j.columns {
		if !slices.Contains(names, j.columns[c].Name) {
			out.columns, out.arrays, out.from = append(out.columns, j.columns[c]), append(out.arrays, j.arrays[c]), append(out.from, j.from[c])
		}
	}
	return out
}
