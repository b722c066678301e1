-- Drift: missing values count as a bin, and rare values have bins of their own.

-- References are derived from training sets, and are made again with the new cuts. What was counted on the old cuts
-- cannot be compared with them. Nobody decides by either: verdicts and incidents stay.
DELETE FROM drift.reference;
DELETE FROM drift.profile;

ALTER TABLE drift.verdict ADD COLUMN missing bigint NOT NULL DEFAULT 0; -- values, of what counts and sums are about

-- Registry: which versions of a model with these bytes were revoked.
CREATE INDEX versions_revoked ON registry.versions (tenant, model, digest) WHERE state = 'revoked';
