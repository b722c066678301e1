-- Lineage: an append-only graph of versions. A row is never updated or deleted, so "as of T" is a filter on valid_from.
-- valid_from is the time of the change that recorded the edge; seq orders edges for readers that follow the table.
CREATE SCHEMA lineage;

CREATE TABLE lineage.edges (
    seq        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     text        NOT NULL,
    src        text        NOT NULL CHECK (length(src) <= 512),
    dst        text        NOT NULL CHECK (length(dst) <= 512),
    kind       text        NOT NULL,
    valid_from timestamptz NOT NULL,
    CONSTRAINT edges_once UNIQUE (tenant, src, dst, kind)
);

-- The unique index walks downstream (tenant, src); this one walks upstream.
CREATE INDEX edges_up ON lineage.edges (tenant, dst, src);
