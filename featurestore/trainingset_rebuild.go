package featurestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"waybill"
)

// Rebuild says whether a training set comes out the same again.
type Rebuild struct {
	Equal       bool
	Digest      string // of the rebuilt file; "" when it was not made
	Explanation string // why they differ; "" when equal
}

// RebuildTrainingSet makes a training set again from its recipe and compares the bytes. Nothing of it is kept. With
// Config.Submit the work is a build's (StartRebuild), as that of CreateTrainingSet is.
func (s *Store) RebuildTrainingSet(ctx context.Context, actor waybill.Actor, digest string) (Rebuild, error) {
	if s.submit != nil {
		b, err := s.StartRebuild(ctx, actor, digest)
		if err == nil {
			b, err = s.awaitBuild(ctx, actor.Tenant, b)
		}
		if err != nil {
			return Rebuild{}, err
		}
		return b.Rebuilt(), nil
	}
	base, err := s.TrainingSet(ctx, actor.Tenant, digest)
	if err != nil {
		return Rebuild{}, err
	}
	if why := otherKernel(&base); why != "" {
		return Rebuild{Explanation: why}, nil
	}
	return s.rebuild(ctx, actor.Tenant, &base)
}

// StartRebuild begins what RebuildTrainingSet does and does not wait for it; what came of it, Build.Rebuilt says. Who asks for
// what runs already gets that build. Errors beside RebuildTrainingSet's: Exhausted when the tenant has too many builds.
func (s *Store) StartRebuild(ctx context.Context, actor waybill.Actor, digest string) (Build, error) {
	base, err := s.TrainingSet(ctx, actor.Tenant, digest)
	if err != nil {
		return Build{}, err
	}
	why := otherKernel(&base)
	return s.startBuild(ctx, actor, &order{kind: BuildRebuild, set: &base, base: base.Digest, done: why != "", explanation: why})
}

// otherKernel says why the bytes of a training set cannot be compared; "" when they can.
func otherKernel(t *TrainingSet) string {
	if knownKernel(t.Kernel) {
		return ""
	}
	return fmt.Sprintf("it was made by kernel %q and this hub has %q: the values can be compared, the bytes cannot", t.Kernel, kernel)
}

// rebuild makes the bytes of a training set again.
func (s *Store) rebuild(ctx context.Context, tenant waybill.Tenant, t *TrainingSet) (Rebuild, error) {
	spine, err := s.object(ctx, spinePrefix+"/"+t.Spine)
	if err != nil {
		return Rebuild{}, err
	}
	j, err := s.join(ctx, tenant, t, spine)
	if err != nil {
		return Rebuild{}, err
	}
	data, err := j.file(t)
	if err != nil {
		return Rebuild{}, err
	}
	sum := sha256.Sum256(data)
	r := Rebuild{Digest: hex.EncodeToString(sum[:])}
	if r.Equal = r.Digest == t.Digest; !r.Equal {
		r.Explanation = "the same recipe, commits and kernel gave other bytes; this is a defect of the hub or of its storage"
		if list := differences(t.Columns, j.statistics()); len(list) > 0 {
			r.Explanation += ": " + strings.Join(list, "; ")
		}
	}
	return r, nil
}
