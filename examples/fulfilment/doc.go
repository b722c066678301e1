// Package fulfilment is the example that Waybill is shown and tested with: which warehouse, carrier and service level an
// order is sent by, judged by the risk of a late delivery.
//
// It holds definitions (YAML, embedded), a seeded generator of SYNTHETIC history and orders (scenario.go: invented places,
// carriers and numbers), and a reader that makes the same kind of study from a file of real deliveries (deliveries.go). It
// does no I/O beyond the readers it is given; cmd/waybill runs it against a hub.
package fulfilment

import (
	"embed"
	"fmt"
)

//go:embed definitions/*.yaml
var definitions embed.FS

// Definition returns one of the embedded documents: features, endpoint, rules, or these with the prefix deliveries-.
func Definition(name string) (string, error) {
	b, err := definitions.ReadFile("definitions/" + name + ".yaml")
	if err != nil {
		return "", fmt.Errorf("read definition %s: %w", name, err)
	}
	return string(b), nil
}

// Table is a CSV file for one view: a head, then rows.
type Table struct {
	View string
	CSV  []byte
	Rows int
}
