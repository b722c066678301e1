package waybill

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Tenant names the unit of isolation. Every row, key and leaf carries one. It matches NamePattern.
type Tenant string

// ActorKind tells people from programs: only people may be asked to approve, and reports list the two apart.
type ActorKind string

// The kinds of actor.
const (
	Person  ActorKind = "person"
	Service ActorKind = "service"
)

// Actor is who is calling, as established by internal/access. The zero Actor is nobody and may do nothing.
type Actor struct {
	ID     string      // unique within the tenant, e.g. "alice"
	Tenant Tenant      // the tenant the credential was issued for
	Kind   ActorKind   // person or service
	Via    *Credential // by which token; nil for none. Shared: not to be changed, and no part of who the actor is
}

// Credential is what an Actor showed. Whoever issued a token has seen its secret and could use it, so rules about who did
// what by himself (four eyes) ask for the issuers too.
type Credential struct {
	TokenID string
	Issuers []string // accounts of the tenant through whose hands the token came, the nearest last; never the actor's own
}

// String returns the actor's id, which is what leaves and pages show.
func (a Actor) String() string { return a.ID }

// Clock returns the present time. It is injected everywhere so that tests own time.
type Clock func() time.Time

// SystemClock is the machine's clock in UTC, cut to microseconds: the precision that Postgres keeps.
func SystemClock() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// NamePattern is what every user-given name (tenant, view, model, endpoint, alias) must match.
const NamePattern = `^[a-z][a-z0-9_-]{0,62}$`

// CheckName returns an Invalid error naming field unless name matches NamePattern.
func CheckName(field, name string) error {
	ok := len(name) >= 1 && len(name) <= 63 && name[0] >= 'a' && name[0] <= 'z'
	for i := 1; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-'
	}
	if !ok {
		return InvalidField(field, fmt.Sprintf("%s is not a name; use a lower-case letter followed by up to 62 of a-z, 0-9, _ and -", strconv.QuoteToGraphic(clip(name))))
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// VersionRef names one immutable version of a named thing, written "name@v3". Version 0 stands for "latest", which
// is resolved when something is published and never when it is read.
type VersionRef struct {
	Name    string
	Version int
}

// String returns "name@v3", or "name@latest" for version 0.
func (r VersionRef) String() string {
	if r.Version == 0 {
		return r.Name + "@latest"
	}
	return r.Name + "@v" + strconv.Itoa(r.Version)
}

// ParseVersionRef reads "name", "name@latest" or "name@v3"; field names the input in the error.
func ParseVersionRef(field, s string) (VersionRef, error) {
	name, ver, found := strings.Cut(s, "@")
	if err := CheckName(field, name); err != nil {
		return VersionRef{}, err
	}
	if !found || ver == "latest" {
		return VersionRef{Name: name}, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(ver, "v"))
	if err != nil || n < 1 || n > 1<<30 || ver != "v"+strconv.Itoa(n) {
		return VersionRef{}, InvalidField(field, fmt.Sprintf("%s is not a version; write name@v1, name@v2 … or name@latest", strconv.QuoteToGraphic(clip(s))))
	}
	return VersionRef{Name: name, Version: n}, nil
}

// FeatureRef names one feature of one view version, written "view@v3:feature".
type FeatureRef struct {
	View    VersionRef
	Feature string
}

// String returns "view@v3:feature".
func (r FeatureRef) String() string { return r.View.String() + ":" + r.Feature }

// ParseFeatureRef reads "view:feature", "view@latest:feature" or "view@v3:feature".
func ParseFeatureRef(field, s string) (FeatureRef, error) {
	view, feature, found := strings.Cut(s, ":")
	if !found {
		return FeatureRef{}, InvalidField(field, fmt.Sprintf("%s is not a feature; write view@v1:feature", strconv.QuoteToGraphic(clip(s))))
	}
	v, err := ParseVersionRef(field, view)
	if err != nil {
		return FeatureRef{}, err
	}
	if err := CheckName(field, feature); err != nil {
		return FeatureRef{}, err
	}
	return FeatureRef{View: v, Feature: feature}, nil
}
