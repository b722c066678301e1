package featurestore

import (
	"context"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"

	"waybill/featurestore/asof"
)

// halves is a source of two empty parts.
type halves struct{}

func (halves) Parts() []asof.Part                                          { return make([]asof.Part, 2) }
func (halves) Heads(context.Context, int) (asof.Heads, error)              { return asof.Heads{}, nil }
func (halves) Columns(context.Context, int) ([]arrow.Array, func(), error) { return nil, nil, nil }
func (halves) All(context.Context, int) (asof.Heads, []arrow.Array, error) {
	return asof.Heads{}, nil, nil
}

// A step is done when all parts were read, in two turns or in one.
func TestBuilding_CountsEveryWayToRead(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(s asof.Source, part int) error{
		"InTwoTurns": func(s asof.Source, part int) error {
			if _, err := s.Heads(context.Background(), part); err != nil {
				return err
			}
			_, _, err := s.Columns(context.Background(), part)
			return err
		},
		"AtOnce": func(s asof.Source, part int) error {
			_, _, err := s.All(context.Background(), part)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &building{}
			b.begin(100, 1)
			source := b.counting([]asof.Source{halves{}})[0]
			for part, want := range []int64{50, 100} {
				if err := read(source, part); err != nil {
					t.Fatal(err)
				}
				if _, done, total := b.progress(); done != want || total != 100 {
					t.Errorf("after part %d, %d of %d rows are done; want %d of 100", part, done, total, want)
				}
			}
		})
	}
}
