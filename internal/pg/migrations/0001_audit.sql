-- The decision log. Takes no lock on anything that exists. The application's role needs SELECT and INSERT on entry,
-- never UPDATE or DELETE; the trigger is the second wall.
CREATE SCHEMA audit;

-- One row per log. Its lock orders the appends; epoch fences a sequencer that lost its lease.
CREATE TABLE audit.log (
    log_id           int         PRIMARY KEY,
    origin           text        NOT NULL,
    size             bigint      NOT NULL,
    root             bytea       NOT NULL,
    nodes            bytea[]     NOT NULL, -- compact range of the tree, left to right
    epoch            bigint      NOT NULL,
    last_recorded_at timestamptz NOT NULL
);

-- The exact bytes that are hashed. Insert-only.
CREATE TABLE audit.entry (
    log_id      int         NOT NULL,
    seq         bigint      NOT NULL,
    type        text        NOT NULL,
    tenant      text        NOT NULL,
    subject     text        NOT NULL, -- lineage node or "decision:<id>"
    recorded_at timestamptz NOT NULL,
    leaf        bytea       NOT NULL CHECK (octet_length(leaf) <= 65535),
    leaf_hash   bytea       NOT NULL,
    PRIMARY KEY (log_id, seq)
);
CREATE INDEX entry_by_time ON audit.entry USING brin (recorded_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX entry_governance ON audit.entry (tenant, seq) WHERE type <> 'decision';
CREATE INDEX entry_subject ON audit.entry (tenant, subject, seq) WHERE type <> 'decision';

CREATE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit.% is insert-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER entry_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();

-- Merkle tiles of the C2SP tlog-tiles layout: up to 256 hashes of 32 bytes. The last of each level is still growing.
CREATE TABLE audit.tile (
    log_id int    NOT NULL,
    level  int    NOT NULL,
    idx    bigint NOT NULL,
    hashes bytea  NOT NULL,
    PRIMARY KEY (log_id, level, idx)
);
ALTER TABLE audit.tile ALTER hashes SET STORAGE EXTERNAL; -- hashes do not compress

-- Signed checkpoints, so that no two inconsistent ones are ever signed.
CREATE TABLE audit.checkpoint (
    log_id       int         NOT NULL,
    size         bigint      NOT NULL,
    note         text        NOT NULL,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (log_id, size)
);

-- Governance events wait here from their own transaction until the sequencer moves them into the log.
CREATE TABLE audit.outbox (
    seq     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type    text        NOT NULL,
    tenant  text        NOT NULL,
    actor   text        NOT NULL,
    at      timestamptz NOT NULL,
    subject text        NOT NULL,
    digest  text        NOT NULL,
    detail  jsonb       NOT NULL
);

-- What decisions are searched by, and their payload, which lies outside the leaf.
CREATE TABLE audit.decision (
    tenant         text        NOT NULL,
    decision_id    uuid        NOT NULL,
    log_id         int         NOT NULL,
    seq            bigint      NOT NULL,
    request_digest bytea       NOT NULL,
    business_key   text        NOT NULL,
    endpoint       text        NOT NULL,
    revision       int         NOT NULL,
    model          text        NOT NULL, -- "" when the rules answered
    model_version  int         NOT NULL,
    decided_at     timestamptz NOT NULL,
    action         text        NOT NULL,
    score          float8,
    fallback       text        NOT NULL,
    gates          text[]      NOT NULL,
    payload        bytea       NOT NULL,
    PRIMARY KEY (tenant, decision_id)
);
CREATE INDEX decision_by_time ON audit.decision (tenant, decided_at DESC, decision_id DESC);
CREATE INDEX decision_by_endpoint ON audit.decision (tenant, endpoint, decided_at DESC, decision_id DESC);
CREATE INDEX decision_by_key ON audit.decision (tenant, business_key, decided_at DESC);
