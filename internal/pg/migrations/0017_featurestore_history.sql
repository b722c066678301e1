-- Sorted history of views: files in the bucket that hold the rows of a stretch of a view's log. Derived: the log is what
-- counts, and a run can be made again from it. The ALTER takes a short exclusive lock and rewrites nothing.

-- How much of a view's log the runs hold. Its row lock orders compactions.
CREATE TABLE featurestore.history (
    tenant  text   NOT NULL,
    view    text   NOT NULL,
    version int    NOT NULL,
    covered bigint NOT NULL CHECK (covered >= 0), -- commits 1 to covered are in the runs that are not replaced, each in one
    PRIMARY KEY (tenant, view, version)
);

-- A file of history. What it says never changes, but for the moment in which others took its place.
CREATE TABLE featurestore.history_run (
    id          uuid        PRIMARY KEY, -- version 7; it names the objects featurestore/history/<id>.parquet and .index
    tenant      text        NOT NULL,
    view        text        NOT NULL,
    version     int         NOT NULL,
    first_seq   bigint      NOT NULL CHECK (first_seq > 0), -- of the commits whose rows it holds, all of them
    last_seq    bigint      NOT NULL CHECK (last_seq >= first_seq),
    rows        bigint      NOT NULL CHECK (rows > 0),
    size_bytes  bigint      NOT NULL,
    min_event   timestamptz NOT NULL,
    max_event   timestamptz NOT NULL,
    digest      text        NOT NULL, -- hex SHA-256 of the Parquet file
    index_digest text       NOT NULL, -- hex SHA-256 of the index, which holds those of the file's parts
    made_at     timestamptz NOT NULL,
    replaced_at timestamptz  -- null: it is read
);
CREATE INDEX history_run_by_view ON featurestore.history_run (tenant, view, version, first_seq) WHERE replaced_at IS NULL;
CREATE INDEX history_run_replaced ON featurestore.history_run (replaced_at) WHERE replaced_at IS NOT NULL;

-- What a training set's recipe says beyond its columns: full names, delay, what was left out. Empty for those from before.
ALTER TABLE featurestore.training_set ADD COLUMN options jsonb NOT NULL DEFAULT '{}';
