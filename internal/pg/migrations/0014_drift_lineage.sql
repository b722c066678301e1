-- Drift: missing values count as a bin, and rare values have bins of their own.

-- References are derived from training sets, and are made again with the new cuts. What was counted on the old cuts
-- cannot be compared with them. Nobody decides by either: verdicts and incidents stay.
DELETE FROM drift.reference;
DELETE FROM drift.profile;

ALTER TABLE drift.verdict ADD COLUMN missing bigint NOT NULL DEFAULT 0; -- values, of what counts and sums are about

-- One open incident per endpoint, model and feature, whichever monitors see it: kept by a lock, since a feature is one of
-- several in its row. Resolved ones are asked about too.
DROP INDEX drift.incident_one_open;
CREATE INDEX incident_by_cause ON drift.incident (tenant, endpoint, model, version, state);

-- Verdicts are swept by age.
CREATE INDEX verdict_by_age ON drift.verdict (at);

-- Registry: which versions of a model with these bytes were revoked.
CREATE INDEX versions_revoked ON registry.versions (tenant, model, digest) WHERE state = 'revoked';

-- Lineage: "commit:view@v1/12" → "trainingset:…" says that the set read that view's log up to and including commit 12. These
-- find the sets that a commit reached. What stands behind the colon was checked when the edge was recorded.
CREATE FUNCTION lineage.commit_view(node text) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT CASE WHEN node LIKE 'commit:%' THEN split_part(substr(node, 8), '/', 1) END $$;
CREATE FUNCTION lineage.commit_seq(node text) RETURNS bigint LANGUAGE sql IMMUTABLE AS
    $$ SELECT CASE WHEN node LIKE 'commit:%' THEN split_part(node, '/', 2)::bigint END $$;
CREATE INDEX edges_read_up_to ON lineage.edges (tenant, lineage.commit_view(src), lineage.commit_seq(src))
    WHERE src LIKE 'commit:%' AND dst LIKE 'trainingset:%';
