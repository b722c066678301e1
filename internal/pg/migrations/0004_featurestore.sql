-- Feature definitions and the log of every view. Takes no lock on anything that exists.
CREATE SCHEMA featurestore;

-- Every revision of every view and service. Insert-only: a published definition never changes.
CREATE TABLE featurestore.definition (
    tenant       text        NOT NULL,
    kind         text        NOT NULL CHECK (kind IN ('view', 'service')),
    name         text        NOT NULL,
    version      int         NOT NULL CHECK (version > 0),
    revision     int         NOT NULL CHECK (revision > 0), -- within the version
    digest       text        NOT NULL,
    yaml         text        NOT NULL, -- references resolved
    author       text        NOT NULL,
    reason       text        NOT NULL,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, kind, name, version, revision)
);

-- The end of each view version's log. Its row lock orders the commits, which makes sequence numbers gap-free.
CREATE TABLE featurestore.log (
    tenant  text   NOT NULL,
    view    text   NOT NULL,
    version int    NOT NULL,
    seq     bigint NOT NULL,
    PRIMARY KEY (tenant, view, version)
);

-- One accepted write. Insert-only.
CREATE TABLE featurestore.commit (
    tenant     text        NOT NULL,
    view       text        NOT NULL,
    version    int         NOT NULL,
    seq        bigint      NOT NULL,
    batch_id   text        NOT NULL,
    digest     text        NOT NULL, -- of the inline bytes
    rows       bigint      NOT NULL,
    min_event  timestamptz NOT NULL,
    max_event  timestamptz NOT NULL,
    inline     bytea       NOT NULL, -- JSON rows: [[event µs, knowledge µs, [keys], [features]], …]
    actor      text        NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, view, version, seq),
    CONSTRAINT commit_batch_once UNIQUE (tenant, view, version, batch_id)
);

CREATE FUNCTION featurestore.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'featurestore.% is insert-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER definition_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON featurestore.definition
    FOR EACH STATEMENT EXECUTE FUNCTION featurestore.refuse_change();
CREATE TRIGGER commit_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON featurestore.commit
    FOR EACH STATEMENT EXECUTE FUNCTION featurestore.refuse_change();
