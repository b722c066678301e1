package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/bucket"
	"waybill/internal/pg"
	"waybill/lineage"
)

const (
	// neighbours counts the other files of a version and finds one that is a folder of the new path, or the other way.
	neighbours pg.SQL = `
SELECT count(*), coalesce(min(path) FILTER (WHERE starts_with(path, $4 || '/') OR starts_with($4, path || '/')), '')
FROM registry.artifacts WHERE tenant = $1 AND model = $2 AND version = $3 AND path <> $4`

	upsertArtifact pg.SQL = `
INSERT INTO registry.artifacts (tenant, model, version, path, size, sha256, uploaded_by, uploaded_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (tenant, model, version, path) DO UPDATE
SET size = excluded.size, sha256 = excluded.sha256, uploaded_by = excluded.uploaded_by, uploaded_at = excluded.uploaded_at`

	updateAuthors pg.SQL = `UPDATE registry.versions SET authors = $4 WHERE tenant = $1 AND model = $2 AND version = $3`

	selectArtifact pg.SQL = `
SELECT path, size, sha256, uploaded_by, uploaded_at FROM registry.artifacts
WHERE tenant = $1 AND model = $2 AND version = $3 AND path = $4`
)

// UploadArtifact streams one file into a draft version, in constant memory; a file of the same path is replaced. The
// uploader becomes an author of the version for good, even when the file is replaced later. Errors: Invalid for the
// path, NotFound, Conflict when the version is frozen or the path is a folder of another file, TooLarge.
func (s *Store) UploadArtifact(ctx context.Context, actor waybill.Actor, ref waybill.VersionRef, path string, r io.Reader) (Artifact, error) {
	if err := checkActor(actor); err != nil {
		return Artifact{}, err
	}
	if err := checkRef(ref); err != nil {
		return Artifact{}, err
	}
	if err := CheckPath("path", path); err != nil {
		return Artifact{}, err
	}
	// Asked twice: here so that a frozen version does not first take gigabytes, and under the lock, where it counts.
	before, err := s.Get(ctx, actor.Tenant, ref)
	if err != nil {
		return Artifact{}, err
	}
	if err := writable(before); err != nil {
		return Artifact{}, err
	}
	bounded := &boundedReader{r: r, left: s.maxFile}
	object, err := s.bucket.PutContent(ctx, prefix(actor.Tenant), bounded)
	if bounded.exceeded {
		return Artifact{}, waybill.Errorf(waybill.TooLarge, "%s is larger than %d bytes, the most one file may have; split it", path, s.maxFile)
	}
	if err != nil {
		return Artifact{}, fmt.Errorf("store artifact: %w", err)
	}
	// From here on the bytes are in the bucket; if the transaction fails nothing names them.
	file := Artifact{Path: path, Size: object.Size, SHA256: hex.EncodeToString(object.SHA256[:]), UploadedBy: actor.ID}
	err = pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		file.UploadedAt = s.now()
		v, err := lock(ctx, tx, actor.Tenant, ref)
		if err != nil {
			return err
		}
		if err := writable(v); err != nil {
			return err
		}
		var others int
		var clash string
		if err := tx.QueryRow(ctx, string(neighbours), v.Tenant, v.Model, v.Version, path).Scan(&others, &clash); err != nil {
			return fmt.Errorf("look at other artifacts: %w", err)
		}
		if clash != "" {
			return waybill.Errorf(waybill.Conflict, "%s and %s cannot both be files: one is a folder of the other; choose another path", path, clash)
		}
		if others >= MaxArtifacts {
			return waybill.Errorf(waybill.TooLarge, "%s has %d files, the most a version may have; pack them into an archive", ref, others)
		}
		_, err = tx.Exec(ctx, string(upsertArtifact), v.Tenant, v.Model, v.Version, path, file.Size, file.SHA256, actor.ID, file.UploadedAt)
		if err != nil {
			return fmt.Errorf("insert artifact: %w", err)
		}
		if _, err := tx.Exec(ctx, string(updateAuthors), v.Tenant, v.Model, v.Version, addAuthor(v.Authors, actor.ID)); err != nil {
			return fmt.Errorf("update authors: %w", err)
		}
		return s.record(ctx, tx, actor, v, file.UploadedAt, change{
			action: "upload", digest: "sha256:" + file.SHA256,
			detail: map[string]any{"path": path, "size": file.Size},
			edges:  []lineage.Edge{{From: lineage.ActorNode(actor), To: lineage.ModelNode(ref), Kind: lineage.Wrote}},
		})
	})
	if err != nil {
		return Artifact{}, plain(err)
	}
	return file, nil
}

// OpenArtifact opens one file of a version. The reader checks the digest as it goes: instead of io.EOF its last Read
// returns a Corrupt error when the bytes are not those that were uploaded, so nothing may be used before the end was
// reached. ref.Version 0 is the newest version. The caller closes the reader.
func (s *Store) OpenArtifact(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef, path string) (io.ReadCloser, Artifact, error) {
	if err := CheckPath("path", path); err != nil {
		return nil, Artifact{}, err
	}
	v, err := s.Get(ctx, tenant, ref)
	if err != nil {
		return nil, Artifact{}, err
	}
	rows, err := s.pool.Query(ctx, string(selectArtifact), tenant, v.Model, v.Version, path)
	if err != nil {
		return nil, Artifact{}, fmt.Errorf("look up artifact: %w", err)
	}
	file, err := pgx.CollectExactlyOneRow(rows, scanArtifact)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, Artifact{}, waybill.Errorf(waybill.NotFound, "%s has no file %s", v.Ref(), path)
	}
	if err != nil {
		return nil, Artifact{}, fmt.Errorf("look up artifact: %w", err)
	}
	r, err := s.open(ctx, v, file)
	return r, file, err
}

// ReadEntrypoint returns the bytes of the file that package score reads, once they and the version's root digest are
// verified. Errors: NotFound, Conflict when the file was not uploaded yet, TooLarge beyond max bytes, Corrupt.
func (s *Store) ReadEntrypoint(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef, max int64) ([]byte, error) {
	v, err := s.Get(ctx, tenant, ref)
	if err != nil {
		return nil, err
	}
	// The files' digests are only worth something if they are those that were approved.
	if v.State != Draft {
		root, err := RootDigest(v.Format, v.Entrypoint, v.Files)
		if err != nil {
			return nil, err
		}
		if root != v.Digest {
			return nil, waybill.Errorf(waybill.Corrupt, "the list of files of %s is corrupt: expected root digest %s, found %s", v.Ref(), v.Digest, root)
		}
	}
	for _, file := range v.Files {
		if file.Path != v.Entrypoint {
			continue
		}
		if file.Size > max {
			return nil, waybill.Errorf(waybill.TooLarge, "%s of %s has %d bytes; at most %d can be loaded", file.Path, v.Ref(), file.Size, max)
		}
		return s.readAll(ctx, v, file)
	}
	return nil, waybill.Errorf(waybill.Conflict, "%s has no file %s yet; upload it", v.Ref(), v.Entrypoint)
}

func (s *Store) readAll(ctx context.Context, v Version, file Artifact) (data []byte, err error) {
	r, err := s.open(ctx, v, file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if data, err = io.ReadAll(r); err != nil {
		return nil, plain(err)
	}
	return data, nil
}

// open opens the object of a file behind a verifying reader.
func (s *Store) open(ctx context.Context, v Version, file Artifact) (io.ReadCloser, error) {
	r, _, err := s.bucket.Get(ctx, prefix(v.Tenant)+"/"+file.SHA256)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, waybill.Wrap(waybill.Corrupt, err,
			fmt.Sprintf("%s of %s is missing in the bucket: expected sha256 %s, found nothing", file.Path, v.Ref(), file.SHA256))
	}
	if err != nil {
		return nil, fmt.Errorf("open artifact: %w", err)
	}
	return &verifyingReader{r: r, hash: sha256.New(), ref: v.Ref(), want: file}, nil
}

// prefix keeps tenants apart in the bucket: equal bytes of two tenants are two objects, so that neither can learn
// what the other has and each can be deleted alone.
func prefix(t waybill.Tenant) string { return "models/" + string(t) }

// writable returns nil for a draft, and otherwise says what to do instead.
func writable(v Version) error {
	if v.State == Draft {
		return nil
	}
	return waybill.Errorf(waybill.Conflict, "%s is %s: its files are frozen since it was submitted; create a new version", v.Ref(), v.State)
}

// boundedReader ends in an error, not in EOF, after left bytes: a cut file must never look like a whole one.
type boundedReader struct {
	r        io.Reader
	left     int64
	exceeded bool
}

var errTooLarge = errors.New("file is larger than allowed")

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.exceeded {
		return 0, errTooLarge
	}
	// One byte more than allowed is asked for, to tell a file of exactly the bound from a longer one.
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		b.exceeded = true
		return 0, errTooLarge
	}
	return n, err
}

// verifyingReader hashes what passes and turns the end into a Corrupt error when size or digest differ.
type verifyingReader struct {
	r    io.ReadCloser
	hash hash.Hash
	ref  waybill.VersionRef
	want Artifact
	seen int64
	err  error // what the end turned out to be; kept for further reads
}

func (v *verifyingReader) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	v.seen += int64(n)
	v.hash.Write(p[:n])
	if v.seen > v.want.Size && (err == nil || errors.Is(err, io.EOF)) {
		// Longer than it should be. Read on only to name the digest that was found.
		if _, copyErr := io.Copy(v.hash, v.r); copyErr != nil {
			err = copyErr
		} else {
			err = io.EOF
		}
	}
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		v.err = fmt.Errorf("read artifact: %w", err)
	case hex.EncodeToString(v.hash.Sum(nil)) != v.want.SHA256:
		v.err = waybill.Errorf(waybill.Corrupt, "%s of %s is corrupt: expected sha256 %s, found %x",
			v.want.Path, v.ref, v.want.SHA256, v.hash.Sum(nil))
		return 0, v.err
	default:
		v.err = io.EOF
	}
	return n, v.err
}

func (v *verifyingReader) Close() error {
	if err := v.r.Close(); err != nil {
		return fmt.Errorf("close artifact: %w", err)
	}
	return nil
}
