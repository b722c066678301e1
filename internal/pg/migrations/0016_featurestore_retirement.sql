-- Retired definitions. The ALTER takes a short exclusive lock and rewrites nothing.

-- A view or service version that nobody new may use. Insert-only: what is retired stays so; a new version is made instead.
CREATE TABLE featurestore.retirement (
    tenant     text        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('view', 'service')),
    name       text        NOT NULL,
    version    int         NOT NULL CHECK (version > 0),
    reason     text        NOT NULL,
    actor      text        NOT NULL,
    retired_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, kind, name, version)
);
CREATE TRIGGER retirement_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON featurestore.retirement
    FOR EACH STATEMENT EXECUTE FUNCTION featurestore.refuse_change();

-- The same, where a writer sees it under the lock that orders the commits: a push that waits for the lock while the view is
-- retired finds it here, as it would not in a table that its statement had not yet seen.
ALTER TABLE featurestore.log ADD COLUMN retired boolean NOT NULL DEFAULT false;
