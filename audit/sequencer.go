package audit

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"waybill"
)

func compactFactory() *compact.RangeFactory {
	return &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
}

// rootOf is the RFC 6962 root: SHA-256 of nothing for the empty tree.
func rootOf(r *compact.Range) ([]byte, error) {
	if r.End() == 0 {
		return rfc6962.DefaultHasher.EmptyRoot(), nil
	}
	root, err := r.GetRootHash(nil)
	if err != nil {
		return nil, fmt.Errorf("hash root: %w", err)
	}
	return root, nil
}

func ed25519Public(seed []byte) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
}

// add hashes a leaf into the batch's tree and tiles and returns its index.
func (p *pending) add(r row) (int64, [32]byte, error) {
	r.hash = LeafHash(r.leaf)
	index := int64(p.tree.End())
	err := p.tree.Append(r.hash[:], func(id compact.NodeID, hash []byte) {
		p.batch.nodes[id] = hash
		if id.Level%8 != 0 {
			return // between the rows that tiles store
		}
		level := id.Level / 8
		tile := append(p.edges[level], hash...)
		p.tiles[tileID{level, int64(id.Index / tileWidth)}] = tile
		if len(tile) == tileWidth*32 {
			tile = nil
		}
		p.edges[level] = tile
	})
	if err != nil {
		return 0, r.hash, fmt.Errorf("append leaf: %w", err)
	}
	p.rows = append(p.rows, r)
	return index, r.hash, nil
}

// copy writes entries, decisions, tiles and the log's new size in the open transaction.
func (l *Log) copy(ctx context.Context, tx pgx.Tx, p *pending) error {
	if len(p.rows) == 0 {
		return nil
	}
	start := p.end - int64(len(p.rows))
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"audit", "entry"},
		[]string{"log_id", "seq", "type", "tenant", "subject", "recorded_at", "leaf", "leaf_hash"},
		pgx.CopyFromSlice(len(p.rows), func(i int) ([]any, error) {
			r := &p.rows[i]
			return []any{l.cfg.LogID, start + int64(i), r.kind, r.tenant, r.subject, p.recorded, r.leaf, r.hash[:]}, nil
		})); err != nil {
		return fmt.Errorf("copy entries: %w", err)
	}
	var decided []int
	for i := range p.rows {
		if p.rows[i].decision != nil {
			decided = append(decided, i)
		}
	}
	if len(decided) > 0 {
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"audit", "decision"},
			[]string{"tenant", "decision_id", "log_id", "seq", "request_digest", "business_key", "endpoint", "revision", "model", "model_version",
				"decided_at", "action", "score", "fallback", "gates", "payload"},
			pgx.CopyFromSlice(len(decided), func(i int) ([]any, error) {
				d := p.rows[decided[i]].decision
				gates := d.Leaf.Gates
				if gates == nil {
					gates = []string{}
				}
				return []any{string(d.Leaf.Tenant), [16]byte(d.Leaf.ID), l.cfg.LogID, start + int64(decided[i]), d.RequestDigest[:], d.BusinessKey,
					d.Endpoint, d.Revision, d.Model, d.ModelVersion, d.DecidedAt, d.Leaf.Action, d.Leaf.Score, d.Leaf.Fallback, gates, d.Payload}, nil
			})); err != nil {
			return fmt.Errorf("copy decisions: %w", err)
		}
	}
	var work pgx.Batch
	for id, hashes := range p.tiles {
		work.Queue(string(upsertTile), l.cfg.LogID, int(id.level), id.index, hashes)
	}
	work.Queue(string(updateLog), l.cfg.LogID, p.end, p.root, p.tree.Hashes(), p.recorded)
	if err := tx.SendBatch(ctx, &work).Close(); err != nil {
		return fmt.Errorf("write tiles: %w", err)
	}
	return nil
}

// finish moves memory on to the committed batch, signs its checkpoint and answers. The checkpoint of every batch is
// signed for its receipts; what is published is at most one a second and is stored first (see Checkpoint).
func (l *Log) finish(_ context.Context, p *pending) error {
	l.size, l.tree, l.edges, l.pseq, l.recorded = p.end, p.tree, p.edges, p.pseq, p.recorded
	text, err := l.signNote(p.end, p.root)
	if err != nil {
		return err
	}
	p.batch.size, p.batch.note = p.end, text
	for i, w := range p.waiters {
		w.done <- p.results[i]
	}
	return nil
}

// signNote signs a checkpoint: origin, size, root (c2sp.org/tlog-checkpoint). The caller has it from a committed tree.
func (l *Log) signNote(size int64, root []byte) (string, error) {
	text := l.cfg.Origin + "\n" + strconv.FormatInt(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root) + "\n"
	signed, err := note.Sign(&note.Note{Text: text}, l.signer)
	if err != nil {
		return "", fmt.Errorf("sign checkpoint: %w", err)
	}
	return string(signed), nil
}

// pathIn returns the inclusion path of index in the tree of size, from single node hashes.
func pathIn(index, size int64, get func(compact.NodeID) ([]byte, error)) ([][]byte, error) {
	nodes, err := proof.Inclusion(uint64(index), uint64(size))
	if err != nil {
		return nil, waybill.InvalidField("index", "lies beyond the log")
	}
	return collect(nodes, get)
}

func collect(nodes proof.Nodes, get func(compact.NodeID) ([]byte, error)) ([][]byte, error) {
	hashes := make([][]byte, 0, len(nodes.IDs))
	for _, id := range nodes.IDs {
		h, err := get(id)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h)
	}
	path, err := nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		return nil, fmt.Errorf("rehash proof: %w", err)
	}
	return path, nil
}
