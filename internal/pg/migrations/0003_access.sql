-- Access: who may call and what they may do. Every change takes the row of policy_rev first, so changes commit in the
-- order of their revisions and a node that has read revision N has read all before it. Names sort by bytes ("C"), as
-- the pages of the lists do.
CREATE SCHEMA access;

CREATE TABLE access.policy_rev (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    rev     bigint  NOT NULL,
    builtin integer NOT NULL -- the version of the built-in roles that rule holds for tenant '*'
);
INSERT INTO access.policy_rev (rev, builtin) VALUES (0, 0);

CREATE TABLE access.tenant (
    name       text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
    operator   boolean     NOT NULL, -- the hub's own tenant: the only one whose administrators may make tenants
    created_by text        NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX tenant_one_operator ON access.tenant (operator) WHERE operator;

CREATE TABLE access.account (
    tenant       text COLLATE "C" NOT NULL REFERENCES access.tenant,
    id           text COLLATE "C" NOT NULL CHECK (id ~ '^[a-z][a-z0-9_-]{0,62}$'),
    kind         text        NOT NULL CHECK (kind IN ('person', 'service')),
    display_name text        NOT NULL CHECK (length(display_name) <= 200),
    disabled     boolean     NOT NULL DEFAULT false,
    created_by   text        NOT NULL,
    created_at   timestamptz NOT NULL,
    CONSTRAINT account_once PRIMARY KEY (tenant, id)
);

-- secret_sha256 is the digest of 256 random bits: no salt or slow hash is needed, and no secret is stored.
CREATE TABLE access.token (
    id            text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[0-9A-Za-z]{12}$'),
    tenant        text COLLATE "C" NOT NULL,
    account       text COLLATE "C" NOT NULL,
    secret_sha256 bytea       NOT NULL CHECK (length(secret_sha256) = 32),
    scopes        text[]      NOT NULL, -- the only actions it is good for; empty is all that the account may do
    created_by    text        NOT NULL,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz,
    last_used_at  timestamptz, -- at most one minute behind per node
    FOREIGN KEY (tenant, account) REFERENCES access.account
);
CREATE INDEX token_by_tenant ON access.token (tenant, id);
CREATE INDEX token_by_account ON access.token (tenant, account, expires_at);

-- A casbin p line. Tenant '*' holds the built-in roles and nothing else: a rule for one account never crosses tenants.
CREATE TABLE access.rule (
    tenant     text COLLATE "C" NOT NULL CHECK (tenant = '*' OR tenant ~ '^[a-z][a-z0-9_-]{0,62}$'),
    subject    text COLLATE "C" NOT NULL CHECK (subject ~ '^(role|account):[a-z][a-z0-9_-]{0,62}$'),
    object     text COLLATE "C" NOT NULL CHECK (length(object) BETWEEN 1 AND 200),
    action     text COLLATE "C" NOT NULL CHECK (length(action) BETWEEN 1 AND 32),
    effect     text COLLATE "C" NOT NULL CHECK (effect IN ('allow', 'deny')),
    created_by text        NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT rule_once PRIMARY KEY (tenant, subject, object, action, effect),
    CHECK (tenant <> '*' OR subject LIKE 'role:%')
);

-- A casbin g line. Always within one tenant.
CREATE TABLE access.binding (
    tenant     text COLLATE "C" NOT NULL,
    account    text COLLATE "C" NOT NULL,
    role       text COLLATE "C" NOT NULL CHECK (role ~ '^[a-z][a-z0-9_-]{0,62}$'),
    created_by text        NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT binding_once PRIMARY KEY (tenant, account, role),
    FOREIGN KEY (tenant, account) REFERENCES access.account
);
