package registry

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"waybill"
)

// Format says how the entrypoint's bytes are read by package score.
type Format string

// The formats.
const (
	LightGBM Format = "lightgbm" // LightGBM text model
	XGBoost  Format = "xgboost"  // XGBoost JSON model
	Rules    Format = "rules"    // rule set of expressions
)

// Automation is how much of a decision the model takes by itself (the classes of the GDPR and the AI Act).
type Automation string

// The classes of automation.
const (
	Advisory        Automation = "advisory"         // a person decides and may look at the answer
	HumanInLoop     Automation = "human_in_loop"    // a person confirms
	SolelyAutomated Automation = "solely_automated" // nobody confirms
)

// The bounds of a version's description.
const (
	maxText    = 16 << 10
	maxReason  = 2000
	maxMetrics = 1000
	maxTags    = 100
	maxKey     = 250
	maxValue   = 5000
)

// NewVersion describes a version to be created.
type NewVersion struct {
	Model          string // the model; made when it is new
	Description    string
	Format         Format
	Entrypoint     string             // path of the artifact that package score reads
	FeatureService waybill.VersionRef // a fixed version; the zero value for a model that reads the request alone
	TrainingSet    string             // "sha256:<hex>" or hex; "" when nothing was trained
	Metrics        map[string]float64 // finite numbers
	Automation     Automation
	IntendedUse    string
	Tags           map[string]string
}

// Version is one version of a model. Files are filled by Get, Resolve and the methods that change a version, not in
// lists.
type Version struct {
	Tenant         waybill.Tenant
	Model          string
	Version        int
	State          State
	Digest         string // "sha256:<hex>" over the canonical manifest; "" while draft
	Format         Format
	Entrypoint     string
	FeatureService waybill.VersionRef // zero when there is none
	TrainingSet    string             // hex SHA-256; "" when there is none
	Metrics        map[string]float64
	Description    string
	IntendedUse    string
	Automation     Automation
	Tags           map[string]string
	Author         string   // who created it
	Authors        []string // creator, uploaders and submitter, in that order: none of them may approve
	CreatedAt      time.Time
	SubmittedAt    time.Time // zero while draft
	Files          []Artifact
	Approvals      []Approval // verdicts, oldest first
	Aliases        []string   // sorted
	Needs          string     // in words, what it lacks before it may serve; "" when approved
	RevokedAs      string     // "v1: reason" when another version of the model with the same root digest was revoked

	seq       int64
	revokedAs int // the number in RevokedAs
}

// Ref returns "model@v3" as a reference.
func (v Version) Ref() waybill.VersionRef {
	return waybill.VersionRef{Name: v.Model, Version: v.Version}
}

// Artifact is one file of a version.
type Artifact struct {
	Path       string
	Size       int64
	SHA256     string // 64 hex digits
	UploadedBy string
	UploadedAt time.Time
}

// Approval is a verdict on a version: consent, refusal, withdrawal, end of term or retirement, with what was looked at.
type Approval struct {
	ID             waybill.ID
	Kind           Event
	Actor          string
	Reason         string
	Digest         string // the root digest it binds
	FeatureService waybill.VersionRef
	TrainingSet    string
	At             time.Time
}

// Model is a name with its newest version and aliases.
type Model struct {
	Name      string
	CreatedAt time.Time
	CreatedBy string
	Versions  int // how many there are, which is also the newest number
	Latest    Version
	Aliases   map[string]int
}

// check returns every violation of a new version at once, and the version with its training set in canonical form.
func (n NewVersion) check() (NewVersion, error) {
	var vs []waybill.Violation
	add := func(field, remedy string) { vs = append(vs, waybill.Violation{Field: field, Remedy: remedy}) }
	addErr := func(err error) { vs = append(vs, violations(err)...) }

	addErr(waybill.CheckName("model", n.Model))
	if !slices.Contains([]Format{LightGBM, XGBoost, Rules}, n.Format) {
		add("format", strconv.QuoteToGraphic(string(n.Format))+" is not a format; use lightgbm, xgboost or rules")
	}
	addErr(CheckPath("entrypoint", n.Entrypoint))
	if n.FeatureService != (waybill.VersionRef{}) {
		addErr(waybill.CheckName("feature_service", n.FeatureService.Name))
		if n.FeatureService.Version < 1 {
			add("feature_service", "names no fixed version; write "+n.FeatureService.Name+"@v1 with the version the model was trained on")
		}
	}
	if n.TrainingSet != "" {
		set := strings.TrimPrefix(n.TrainingSet, "sha256:")
		if len(set) != 64 || strings.Trim(set, "0123456789abcdef") != "" {
			add("training_set", strconv.QuoteToGraphic(clip(n.TrainingSet))+" is not a digest; give the 64 hex digits of the training set")
		}
		n.TrainingSet = set
	}
	if !slices.Contains([]Automation{Advisory, HumanInLoop, SolelyAutomated}, n.Automation) {
		add("automation", strconv.QuoteToGraphic(string(n.Automation))+" is not a class; use advisory, human_in_loop or solely_automated")
	}
	addErr(checkText("description", n.Description, maxText))
	addErr(checkText("intended_use", n.IntendedUse, maxText))
	if len(n.Metrics) > maxMetrics {
		add("metrics", fmt.Sprintf("has %d entries; at most %d", len(n.Metrics), maxMetrics))
	}
	for _, k := range slices.Sorted(maps.Keys(n.Metrics)) {
		addErr(checkKey("metrics", k))
		if v := n.Metrics[k]; math.IsNaN(v) || math.IsInf(v, 0) {
			add("metrics."+clip(k), "is not a finite number; leave it out or give its value")
		}
	}
	if len(n.Tags) > maxTags {
		add("tags", fmt.Sprintf("has %d entries; at most %d", len(n.Tags), maxTags))
	}
	for _, k := range slices.Sorted(maps.Keys(n.Tags)) {
		addErr(checkKey("tags", k))
		addErr(checkText("tags."+clip(k), n.Tags[k], maxValue))
	}
	if len(vs) > 20 {
		vs = vs[:20] // enough to mend a request by; the bound keeps the answer small
	}
	return n, waybill.InvalidFields(vs)
}

// checkAlias refuses names that Resolve would read as a version.
func checkAlias(alias string) error {
	if err := waybill.CheckName("alias", alias); err != nil {
		return err
	}
	if alias == "latest" || len(alias) > 1 && alias[0] == 'v' && strings.Trim(alias[1:], "0123456789") == "" {
		return waybill.InvalidField("alias", alias+" reads as a version; choose another name, such as champion")
	}
	return nil
}

func checkKey(field, k string) error {
	if k == "" || len(k) > maxKey {
		return waybill.InvalidField(field, fmt.Sprintf("has the key %s; a key has 1 to %d bytes", strconv.QuoteToGraphic(clip(k)), maxKey))
	}
	return checkText(field, k, maxKey)
}

// checkText keeps out what Postgres cannot store and what is too long.
func checkText(field, s string, limit int) error {
	if len(s) > limit {
		return waybill.InvalidField(field, fmt.Sprintf("is %d bytes long; at most %d", len(s), limit))
	}
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return waybill.InvalidField(field, "is not text; give UTF-8 without zero bytes")
	}
	return nil
}

// checkReason wants words for every verdict that somebody else has to live with.
func checkReason(reason string) error {
	if strings.TrimSpace(reason) == "" {
		return waybill.InvalidField("reason", "is empty; say why, it is shown wherever this version is")
	}
	return checkText("reason", reason, maxReason)
}

// checkActor refuses nobody: every change is somebody's.
func checkActor(a waybill.Actor) error {
	if a.ID == "" || a.Tenant == "" {
		return waybill.Errorf(waybill.Unauthenticated, "nobody is calling; a change of the registry needs an actor")
	}
	return nil
}

// checkRef wants a fixed version: "latest" may mean another one by the time the change is made.
func checkRef(ref waybill.VersionRef) error {
	if err := waybill.CheckName("model", ref.Name); err != nil {
		return err
	}
	if ref.Version < 1 || ref.Version > math.MaxInt32 {
		return waybill.InvalidField("model", ref.String()+" names no fixed version; write "+ref.Name+"@v1")
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
