-- Commits whose rows lie in the bucket, and training sets. The ALTERs take a short exclusive lock and rewrite nothing.
ALTER TABLE featurestore.commit ALTER COLUMN inline DROP NOT NULL;
ALTER TABLE featurestore.commit ADD COLUMN object text; -- key of the Parquet file in the bucket
ALTER TABLE featurestore.commit ADD CONSTRAINT commit_has_rows CHECK ((inline IS NULL) <> (object IS NULL));

-- An as-of join that was made: recipe and result. Insert-only.
CREATE TABLE featurestore.training_set (
    tenant          text        NOT NULL,
    digest          text        NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'), -- SHA-256 of the Parquet file
    name            text        NOT NULL,
    service         text        NOT NULL,
    service_version int         NOT NULL,
    views           jsonb       NOT NULL, -- {"view@v1": newest commit used}
    spine           text        NOT NULL, -- SHA-256 of the spine's file
    spine_format    text        NOT NULL CHECK (spine_format IN ('csv', 'parquet')),
    time_column     text        NOT NULL,
    label_column    text        NOT NULL,
    cutoff          timestamptz, -- null: each row's own time
    kernel          text        NOT NULL,
    rows            bigint      NOT NULL,
    size_bytes      bigint      NOT NULL,
    columns         jsonb       NOT NULL, -- statistics per column
    author          text        NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (tenant, digest)
);
CREATE INDEX training_set_by_age ON featurestore.training_set (tenant, created_at DESC, digest);
CREATE TRIGGER training_set_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON featurestore.training_set
    FOR EACH STATEMENT EXECUTE FUNCTION featurestore.refuse_change();
