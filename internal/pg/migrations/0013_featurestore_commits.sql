-- Commits know their content, and a log knows when it last learned something. The ALTERs take a short exclusive lock and rewrite nothing.

-- Knowledge times within a log never go back, whatever the clocks of the nodes say.
ALTER TABLE featurestore.log ADD COLUMN known_at timestamptz NOT NULL DEFAULT '1970-01-01T00:00:00Z';
UPDATE featurestore.log l SET known_at = c.at
    FROM (SELECT tenant, view, version, max(created_at) AS at FROM featurestore.commit GROUP BY tenant, view, version) c
    WHERE l.tenant = c.tenant AND l.view = c.view AND l.version = c.version;

-- SHA-256 of the rows, however they are stored: a batch id that comes again must come with the same rows. Null in commits
-- from before, whose batch ids are still accepted with any rows.
ALTER TABLE featurestore.commit ADD COLUMN content text;
COMMENT ON COLUMN featurestore.commit.created_at IS 'the knowledge time of all its rows';
COMMENT ON COLUMN featurestore.commit.inline IS 'JSON rows: [[event µs, [keys], [features]], …]; before migration 0013 with the knowledge µs in second place';
