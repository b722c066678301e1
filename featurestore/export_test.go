package featurestore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"waybill"
)

// EncodeKey exposes the key encoding.
func EncodeKey(keys []any) string { return encodeKey(keys) }

// ReadTable runs the decoders of files.
func ReadTable(format string, data []byte) error {
	_, err := readTable(format, data, anyNames)
	return err
}

// MaxFileCells and MaxText are bounds of a file.
const (
	MaxFileCells = maxFileCells
	MaxText      = maxText
)

// The steps of a compaction after which fault is called.
var CompactionSteps = []string{stepWritten, stepData, stepIndex, stepInserted, stepMoved, stepDeleted}

// Compact makes runs of every tail, of parts of few rows. fault may be nil.
func (s *Store) Compact(ctx context.Context, partRows int, fault func(step string) error) error {
	if fault == nil {
		fault = func(string) error { return nil }
	}
	return (&compactor{s, partRows, 1, 1, fault}).run(ctx)
}

// HistoryRows prints every row of a view's history up to a commit, sorted, and counts its sources.
func (s *Store) HistoryRows(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef, through int64, withRuns bool) (rows []string, sources int, err error) {
	v, err := s.view(ctx, s.pool, tenant, ref)
	if err != nil {
		return nil, 0, err
	}
	var features []int
	for i := range v.Features {
		features = append(features, i)
	}
	h, err := s.history(ctx, viewKey{tenant, ref}, &v.View, features, through, withRuns)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	for _, src := range h.sources {
		for p := range src.Parts() {
			heads, err := src.Heads(ctx, p)
			if err != nil {
				return nil, 0, err
			}
			columns, _, err := src.Columns(ctx, p)
			if err != nil {
				return nil, 0, err
			}
			for i, event := range heads.Event {
				line := fmt.Sprint(event, " ", heads.Knowledge[i], " ", heads.Seq[i])
				for _, a := range slices.Concat(heads.Keys, columns) {
					line += " " + a.ValueStr(i)
				}
				if heads.Seq[i] <= through {
					rows = append(rows, line)
				}
			}
		}
	}
	slices.Sort(rows)
	return rows, len(h.sources), nil
}

// MaxAdhoc is how many lists of features are kept.
const MaxAdhoc = maxAdhoc

// Adhoc is how many are.
func (s *Store) Adhoc() int {
	s.adhoc.mu.RLock()
	defer s.adhoc.mu.RUnlock()
	return len(s.adhoc.byID)
}

// Token is the token of a personal text.
func Token(key []byte, tenant waybill.Tenant, text string) string {
	return (&Store{tokenKey: key}).tokens(tenant).tokenise(Column{Type: String, Sensitivity: personal}, text).(string)
}

// ReadStream runs the decoder of Arrow streams.
func ReadStream(next Messages) error {
	st, err := readStream(next, anyNames)
	if err != nil {
		return err
	}
	defer st.release()
	_, err = st.source().table()
	return err
}

// Convert reads a value of a file as one of a type.
func Convert(t Type, v any) (any, error) { return convert(t, v) }

// TextKernel is the kernel of the hubs before.
const TextKernel = textKernel

// CreateBy makes a training set as a hub with that kernel did.
func (s *Store) CreateBy(ctx context.Context, actor waybill.Actor, req TrainingSetRequest, kernel string) (TrainingSet, error) {
	t, spine, err := s.recipeOf(ctx, actor, req)
	if err != nil {
		return TrainingSet{}, err
	}
	t.Kernel = kernel
	j, err := s.join(ctx, actor.Tenant, &t, spine)
	if err != nil {
		return TrainingSet{}, err
	}
	return s.store(ctx, actor, &t, j, spine)
}

// KeepParts makes builds keep every part, however small.
func (s *Store) KeepParts() { s.partCells = 1 }

// Bounds of those who wait for commits.
const (
	MaxAwaiting = maxAwaiting
	AwaitPoll   = awaitPoll
)

// Awaiting is how many wait for commits.
func (s *Store) Awaiting() int {
	s.awaiting.mu.Lock()
	defer s.awaiting.mu.Unlock()
	return s.awaiting.taken
}

// Following says whether the log is followed for those.
func (s *Store) Following() bool {
	s.chase.mu.Lock()
	defer s.chase.mu.Unlock()
	return s.chase.n > 0
}
