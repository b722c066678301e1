-- Endpoint revisions and outcomes. Takes no lock on anything that exists.
CREATE SCHEMA decision;

-- The revision in force. The row is locked while a revision is published, which makes revision numbers gap-free.
CREATE TABLE decision.endpoint (
    tenant       text        NOT NULL,
    name         text        NOT NULL,
    revision     int         NOT NULL CHECK (revision > 0),
    published_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- Every revision there ever was. Insert-only.
CREATE TABLE decision.revision (
    tenant       text        NOT NULL,
    name         text        NOT NULL,
    revision     int         NOT NULL CHECK (revision > 0),
    digest       text        NOT NULL,
    definition   text        NOT NULL, -- YAML, references resolved
    author       text        NOT NULL,
    reason       text        NOT NULL,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, name, revision)
);

CREATE FUNCTION decision.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'decision.% is insert-only', TG_TABLE_NAME;
END $$;

CREATE TRIGGER revision_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON decision.revision
    FOR EACH STATEMENT EXECUTE FUNCTION decision.refuse_change();

-- What really happened. A later report corrects an earlier one; none is lost.
CREATE TABLE decision.outcome (
    id          uuid        PRIMARY KEY,
    tenant      text        NOT NULL,
    decision_id uuid        NOT NULL,
    name        text        NOT NULL,
    value       jsonb       NOT NULL,
    event_time  timestamptz NOT NULL, -- when it was true in the world
    reported_at timestamptz NOT NULL, -- when the hub learned it
    actor       text        NOT NULL
);
CREATE INDEX outcome_by_decision ON decision.outcome (tenant, decision_id, reported_at);

CREATE TRIGGER outcome_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON decision.outcome
    FOR EACH STATEMENT EXECUTE FUNCTION decision.refuse_change();
