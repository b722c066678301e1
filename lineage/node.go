package lineage

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"waybill"
)

// Node names one version of one thing: a kind, a colon, and a name whose shape the kind decides.
//
//	view:warehouse_load@v1      service:route-risk@v1     model:late-risk@v1     endpoint:route@v3
//	commit:warehouse_load@v1/12 trainingset:<hex sha256>  approval:<uuid>        run:<uuid>
//	policy:7                    actor:alice               dataset:<name>         entity:warehouse
type Node string

// MaxNodeBytes bounds a node name, so that two of them always fit into one index row.
const MaxNodeBytes = 512

// shapes says, per kind of node, what may stand behind the colon. A kind that is not listed is refused: a misspelt
// kind would make a node that no question ever finds.
var shapes = map[string]struct {
	valid func(string) bool
	want  string
}{
	"view":        {isVersion, "view:name@v1"},
	"service":     {isVersion, "service:name@v1"},
	"model":       {isVersion, "model:name@v1"},
	"endpoint":    {isVersion, "endpoint:name@v1"},
	"commit":      {isCommit, "commit:view@v1/12"},
	"trainingset": {isSHA256, "trainingset:<64 hex digits>"},
	"approval":    {isID, "approval:<uuid>"},
	"run":         {isID, "run:<uuid>"},
	"incident":    {isID, "incident:<uuid>"},
	"policy":      {isCount, "policy:7"},
	"actor":       {isText, "actor:alice"},
	"entity":      {isText, "entity:warehouse"},
	"dataset":     {isText, "dataset:s3://lake/orders#31"},
}

// Kind returns what stands before the colon, e.g. "model".
func (n Node) Kind() string {
	kind, _, _ := strings.Cut(string(n), ":")
	return kind
}

// Name returns what stands behind the colon, e.g. "late-risk@v1".
func (n Node) Name() string {
	_, name, _ := strings.Cut(string(n), ":")
	return name
}

// Check returns an Invalid error naming field unless n is well formed.
func (n Node) Check(field string) error {
	if len(n) > MaxNodeBytes {
		return waybill.InvalidField(field, fmt.Sprintf("is %d bytes long; a node has at most %d", len(n), MaxNodeBytes))
	}
	kind, name, found := strings.Cut(string(n), ":")
	shape, known := shapes[kind]
	switch {
	case !found || !known:
		return waybill.InvalidField(field, strconv.QuoteToGraphic(string(n))+
			" is not a node; write the kind, a colon and the version, such as model:name@v1, view:name@v1 or actor:alice")
	case !shape.valid(name):
		return waybill.InvalidField(field, strconv.QuoteToGraphic(string(n))+" is not a node of kind "+kind+"; write "+shape.want)
	}
	return nil
}

// ModelNode, and the other constructors below, spell node names in one place.
func ModelNode(ref waybill.VersionRef) Node { return Node("model:" + ref.String()) }

// ServiceNode names a version of a feature service.
func ServiceNode(ref waybill.VersionRef) Node { return Node("service:" + ref.String()) }

// ActorNode names a person or a service account.
func ActorNode(a waybill.Actor) Node { return Node("actor:" + a.ID) }

// ApprovalNode names a recorded consent, refusal or withdrawal.
func ApprovalNode(id waybill.ID) Node { return Node("approval:" + id.String()) }

// IncidentNode names something that was noticed about a model or an endpoint.
func IncidentNode(id waybill.ID) Node { return Node("incident:" + id.String()) }

// TrainingSetNode names a training set by its hex SHA-256.
func TrainingSetNode(hex string) Node { return Node("trainingset:" + hex) }

// isVersion accepts "name@v3" and not "name@latest": latest is resolved before anything is recorded.
func isVersion(s string) bool {
	ref, err := waybill.ParseVersionRef("node", s)
	return err == nil && ref.Version > 0
}

func isCommit(s string) bool {
	view, seq, found := strings.Cut(s, "/")
	return found && isVersion(view) && isCount(seq)
}

func isCount(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

func isID(s string) bool {
	id, err := waybill.ParseID("node", s)
	return err == nil && id.String() == s
}

// isText accepts names that others chose (actors, source datasets): printable, without white space.
func isText(s string) bool {
	if s == "" || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsSpace(r) || !unicode.IsGraphic(r) {
			return false
		}
	}
	return true
}
