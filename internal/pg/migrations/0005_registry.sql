-- The model registry. Versions are numbered per model without gaps by models.last_version, whose row lock every
-- creation takes. What left draft is frozen: the triggers below are the second wall behind the package's own checks.
CREATE SCHEMA registry;

CREATE TABLE registry.models (
    tenant       text        NOT NULL,
    name         text        NOT NULL,
    created_at   timestamptz NOT NULL,
    created_by   text        NOT NULL,
    last_version int         NOT NULL CHECK (last_version >= 1),
    PRIMARY KEY (tenant, name)
);

CREATE TABLE registry.versions (
    tenant                  text        NOT NULL,
    model                   text        NOT NULL,
    version                 int         NOT NULL CHECK (version >= 1),
    seq                     bigint      GENERATED ALWAYS AS IDENTITY UNIQUE, -- order of creation, for paging
    state                   text        NOT NULL CHECK (state IN
        ('draft', 'submitted', 'approved', 'rejected', 'revoked', 'expired', 'retired')),
    digest                  text        NOT NULL DEFAULT '' CHECK ((digest = '') = (state = 'draft')),
    format                  text        NOT NULL,
    entrypoint              text        NOT NULL,
    feature_service         text        NOT NULL, -- '' when the model takes its inputs from the request alone
    feature_service_version int         NOT NULL,
    training_set            text        NOT NULL, -- hex SHA-256, '' when nothing was trained
    metrics                 jsonb       NOT NULL,
    description             text        NOT NULL,
    intended_use            text        NOT NULL,
    automation              text        NOT NULL,
    tags                    jsonb       NOT NULL,
    author                  text        NOT NULL,
    authors                 text[]      NOT NULL, -- creator, uploaders, submitter: none of them may approve
    created_at              timestamptz NOT NULL,
    submitted_at            timestamptz,
    PRIMARY KEY (tenant, model, version),
    FOREIGN KEY (tenant, model) REFERENCES registry.models (tenant, name)
);

CREATE INDEX versions_newest ON registry.versions (tenant, seq);
CREATE INDEX versions_of_model ON registry.versions (tenant, model, seq);
CREATE INDEX versions_by_state ON registry.versions (tenant, state, seq);

CREATE TABLE registry.artifacts (
    tenant      text        NOT NULL,
    model       text        NOT NULL,
    version     int         NOT NULL,
    path        text        NOT NULL CHECK (length(path) BETWEEN 1 AND 512),
    size        bigint      NOT NULL CHECK (size >= 0),
    sha256      text        NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    uploaded_by text        NOT NULL,
    uploaded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, model, version, path),
    FOREIGN KEY (tenant, model, version) REFERENCES registry.versions (tenant, model, version)
);

-- One row per verdict. What was looked at is copied into the row, so that the consent stays readable by itself.
CREATE TABLE registry.approvals (
    id                      uuid        PRIMARY KEY,
    tenant                  text        NOT NULL,
    model                   text        NOT NULL,
    version                 int         NOT NULL,
    seq                     bigint      GENERATED ALWAYS AS IDENTITY,
    kind                    text        NOT NULL CHECK (kind IN ('approve', 'reject', 'revoke', 'expire', 'retire')),
    actor                   text        NOT NULL,
    reason                  text        NOT NULL,
    digest                  text        NOT NULL,
    feature_service         text        NOT NULL,
    feature_service_version int         NOT NULL,
    training_set            text        NOT NULL,
    at                      timestamptz NOT NULL,
    FOREIGN KEY (tenant, model, version) REFERENCES registry.versions (tenant, model, version)
);

CREATE INDEX approvals_of_version ON registry.approvals (tenant, model, version, seq);

-- The present aliases, and all they ever were. version NULL in the history says that the alias was deleted.
CREATE TABLE registry.aliases (
    tenant  text NOT NULL,
    model   text NOT NULL,
    alias   text NOT NULL,
    version int  NOT NULL,
    PRIMARY KEY (tenant, model, alias),
    FOREIGN KEY (tenant, model, version) REFERENCES registry.versions (tenant, model, version)
);

CREATE INDEX aliases_of_version ON registry.aliases (tenant, model, version);

CREATE TABLE registry.alias_history (
    seq     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant  text        NOT NULL,
    model   text        NOT NULL,
    alias   text        NOT NULL,
    version int,
    actor   text        NOT NULL,
    at      timestamptz NOT NULL
);

CREATE INDEX alias_history_at ON registry.alias_history (tenant, model, alias, at, seq);

CREATE FUNCTION registry.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of %.% are never changed', TG_TABLE_SCHEMA, TG_TABLE_NAME;
END $$;

CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON registry.approvals
    FOR EACH ROW EXECUTE FUNCTION registry.refuse_change();
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON registry.alias_history
    FOR EACH ROW EXECUTE FUNCTION registry.refuse_change();

-- After draft only the state moves.
CREATE FUNCTION registry.freeze_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (OLD.state <> 'draft' AND (to_jsonb(OLD) - 'state') <> (to_jsonb(NEW) - 'state')) THEN
        RAISE EXCEPTION 'model version %@v% is frozen', OLD.model, OLD.version;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER frozen BEFORE UPDATE OR DELETE ON registry.versions
    FOR EACH ROW EXECUTE FUNCTION registry.freeze_version();

CREATE FUNCTION registry.freeze_artifacts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r registry.artifacts := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF (SELECT state FROM registry.versions WHERE tenant = r.tenant AND model = r.model AND version = r.version) <> 'draft' THEN
        RAISE EXCEPTION 'the files of model version %@v% are frozen', r.model, r.version;
    END IF;
    RETURN r;
END $$;

CREATE TRIGGER frozen BEFORE INSERT OR UPDATE OR DELETE ON registry.artifacts
    FOR EACH ROW EXECUTE FUNCTION registry.freeze_artifacts();
