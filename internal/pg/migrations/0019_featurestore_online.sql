-- Online rows outside of the hubs' memory. Takes no lock on what exists.
-- The name under which a shared Redis or Valkey holds the rows of this database, made by the first hub: the rows of a
-- database that was made anew are others.
CREATE TABLE featurestore.online_home (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id  uuid    NOT NULL DEFAULT gen_random_uuid()
);

-- The same rows in Postgres, for hubs that read them here when the server above is lost. Empty unless a hub is so configured.
CREATE TABLE featurestore.online_row (
    tenant  text   NOT NULL,
    view    text   NOT NULL,
    version int    NOT NULL,
    key     bytea  NOT NULL, -- the join key as in packed rows
    value   bytea  NOT NULL, -- docs/formats/row.md
    PRIMARY KEY (tenant, view, version, key)
);
CREATE TABLE featurestore.online_position (
    tenant  text   NOT NULL,
    view    text   NOT NULL,
    version int    NOT NULL,
    seq     bigint NOT NULL, -- the commit up to which rows are there
    PRIMARY KEY (tenant, view, version)
);
