-- Drift: what models were trained on, what endpoints see, monitors and incidents. Takes no lock on anything that exists.
CREATE SCHEMA drift;

-- The reference profile of a training set. Insert-only: a training set never changes.
CREATE TABLE drift.reference (
    tenant       text  NOT NULL,
    training_set text  NOT NULL,
    features     jsonb NOT NULL, -- [{name, cuts, counts, sums, missing, mean, std}]
    PRIMARY KEY (tenant, training_set)
);

-- Counts of what an endpoint's model saw in one hour, on the cuts of its reference. Rows only grow.
CREATE TABLE drift.profile (
    tenant       text             NOT NULL,
    endpoint     text             NOT NULL,
    model        text             NOT NULL,
    version      int              NOT NULL,
    hour         timestamptz      NOT NULL,
    feature      text             NOT NULL,
    training_set text             NOT NULL,
    counts       bigint[]         NOT NULL, -- per bin
    sums         double precision[] NOT NULL, -- of the values per bin
    missing      bigint           NOT NULL,
    PRIMARY KEY (tenant, endpoint, hour, model, version, feature)
);

-- Flushes that were committed: a node that lost the answer to its COMMIT looks here. Kept for a day.
CREATE TABLE drift.flush (
    id uuid        PRIMARY KEY,
    at timestamptz NOT NULL
);
CREATE INDEX flush_by_age ON drift.flush (at);

CREATE TABLE drift.monitor (
    tenant         text             NOT NULL,
    name           text             NOT NULL,
    endpoint       text             NOT NULL,
    feature        text             NOT NULL, -- * for all
    statistic      text             NOT NULL CHECK (statistic IN ('psi', 'kl', 'js', 'ks', 'wasserstein')),
    max_value      double precision NOT NULL,
    min_sample     bigint           NOT NULL,
    window_seconds bigint           NOT NULL,
    author         text             NOT NULL,
    changed_at     timestamptz      NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- What a monitor found, with what it looked at, so that it can be computed again. Insert-only.
CREATE TABLE drift.verdict (
    tenant       text             NOT NULL,
    run          uuid             NOT NULL,
    feature      text             NOT NULL,
    monitor      text             NOT NULL,
    model        text             NOT NULL,
    version      int              NOT NULL,
    training_set text             NOT NULL,
    from_time    timestamptz      NOT NULL,
    to_time      timestamptz      NOT NULL,
    statistic    text             NOT NULL,
    value        double precision NOT NULL,
    max_value    double precision NOT NULL,
    state        text             NOT NULL CHECK (state IN ('ok', 'drift', 'insufficient', 'no_reference')),
    counts       bigint[]         NOT NULL,
    sums         double precision[] NOT NULL,
    at           timestamptz      NOT NULL,
    PRIMARY KEY (tenant, run, feature)
);
CREATE INDEX verdict_by_monitor ON drift.verdict (tenant, monitor, at DESC);

CREATE TABLE drift.incident (
    id          uuid        PRIMARY KEY,
    tenant      text        NOT NULL,
    monitor     text        NOT NULL,
    endpoint    text        NOT NULL,
    model       text        NOT NULL,
    version     int         NOT NULL,
    features    text[]      NOT NULL,
    affected    text[]      NOT NULL, -- lineage nodes
    title       text        NOT NULL,
    state       text        NOT NULL CHECK (state IN ('open', 'resolved')),
    opened_at   timestamptz NOT NULL,
    resolved_at timestamptz,
    resolved_by text        NOT NULL DEFAULT '',
    reason      text        NOT NULL DEFAULT ''
);
-- One open incident per cause.
CREATE UNIQUE INDEX incident_one_open ON drift.incident (tenant, monitor, model, version) WHERE state = 'open';
CREATE INDEX incident_by_age ON drift.incident (tenant, opened_at DESC, id);
