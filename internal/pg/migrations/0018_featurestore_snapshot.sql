-- Snapshots of online rows: a hub that starts reads the newest and then the log's tail. Takes no lock on what exists.
CREATE TABLE featurestore.snapshot (
    tenant     text        NOT NULL,
    view       text        NOT NULL,
    version    int         NOT NULL,
    seq        bigint      NOT NULL, -- the commit up to which rows are in it
    rows       bigint      NOT NULL,
    parts      text[]      NOT NULL, -- objects in the bucket: packed rows one after another; each name ends in its SHA-256
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, view, version, seq)
);
COMMENT ON COLUMN featurestore.commit.inline IS 'packed rows (docs/formats/row.md); before migration 0018 JSON: [[event µs, [keys], [features]], …]';
