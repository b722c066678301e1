-- Training sets that are being made, and how that ended. Takes no lock on what exists.
CREATE TABLE featurestore.training_set_build (
    id          uuid        PRIMARY KEY,
    tenant      text        NOT NULL,
    state       text        NOT NULL CHECK (state IN ('waiting', 'running', 'storing', 'done', 'failed', 'cancelled')),
    content     text        NOT NULL, -- hex SHA-256 of the recipe: who asks for the same while it is made waits for the same build
    recipe      jsonb       NOT NULL,
    author      text        NOT NULL,
    author_kind text        NOT NULL,
    tries       int         NOT NULL DEFAULT 0,
    rows        bigint      NOT NULL DEFAULT 0, -- of the spine; 0 until it has been read
    rows_done   bigint      NOT NULL DEFAULT 0,
    rows_total  bigint      NOT NULL DEFAULT 0,
    parts       jsonb       NOT NULL DEFAULT '{}', -- {"number of the look-up": hex SHA-256 of its finished part in the bucket}
    digest      text        NOT NULL DEFAULT '', -- of the training set, when it is done
    error       jsonb, -- why it failed, or why the last try did
    started_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    ended_at    timestamptz,
    CHECK ((ended_at IS NOT NULL) = (state IN ('done', 'failed', 'cancelled')))
);
CREATE UNIQUE INDEX training_set_build_once ON featurestore.training_set_build (tenant, content) WHERE ended_at IS NULL;
CREATE INDEX training_set_build_by_age ON featurestore.training_set_build (tenant, id DESC);
