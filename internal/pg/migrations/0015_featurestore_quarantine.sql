-- Rows that were not accepted, beside the log that took the others of their batch in. Takes no lock on anything that exists.

-- A batch of which rows were held. It stands for its rows, as a commit does: its id is never taken for others. Insert-only.
CREATE TABLE featurestore.quarantine_batch (
    tenant      text        NOT NULL,
    view        text        NOT NULL,
    version     int         NOT NULL,
    batch_id    text        NOT NULL,
    seq         bigint,               -- commit of the accepted rows; null when there were none
    quarantined bigint      NOT NULL CHECK (quarantined > 0),
    content     text        NOT NULL, -- SHA-256 of all rows as they came
    actor       text        NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant, view, version, batch_id)
);
CREATE TRIGGER quarantine_batch_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON featurestore.quarantine_batch
    FOR EACH STATEMENT EXECUTE FUNCTION featurestore.refuse_change();

-- The held rows themselves. They go when somebody clears them; the counts above stay.
CREATE TABLE featurestore.quarantine (
    tenant     text   NOT NULL,
    view       text   NOT NULL,
    version    int    NOT NULL,
    id         bigint GENERATED ALWAYS AS IDENTITY,
    batch_id   text   NOT NULL,
    row_number bigint NOT NULL CHECK (row_number > 0), -- within the batch, from 1
    reasons    json   NOT NULL, -- [{"field": …, "remedy": …}, …]
    row        json   NOT NULL, -- as it came, except that personal fields are never in clear
    PRIMARY KEY (tenant, view, version, id),
    FOREIGN KEY (tenant, view, version, batch_id) REFERENCES featurestore.quarantine_batch
);
CREATE INDEX quarantine_by_batch ON featurestore.quarantine (tenant, view, version, batch_id, id);
