-- Access, so that a node reads what has changed since the revision it knows instead of everything: tokens one by one,
-- accounts, rules and bindings by tenant. And who had a token in hand. Builds on 0003 alone.
ALTER TABLE access.token
    ADD COLUMN issuers text[] NOT NULL DEFAULT '{}', -- accounts of the tenant through whose hands it came: who issued it, who issued the token used for that, …
    ADD COLUMN rev     bigint NOT NULL DEFAULT 0;    -- the policy revision of its last change; uses are none
ALTER TABLE access.tenant ADD COLUMN rev bigint NOT NULL DEFAULT 0;          -- the revision of the last change of its accounts, rules and bindings
ALTER TABLE access.policy_rev ADD COLUMN full_rev bigint NOT NULL DEFAULT 0; -- the last revision since which everything must be read again

UPDATE access.token t SET issuers = ARRAY[t.created_by]
WHERE EXISTS (SELECT FROM access.account a WHERE a.tenant = t.tenant AND a.id = t.created_by);

CREATE INDEX token_by_rev ON access.token (rev);

-- The revision that a row which is being changed belongs to: the new one in a change that has taken it, as all changes of
-- the hub do first; the next one for whoever writes without, so that the next change makes it seen. Triggers set it, so
-- that no writer can forget, also not an older hub that still runs.
CREATE FUNCTION access.changing_rev() RETURNS bigint LANGUAGE sql AS
$$ SELECT CASE WHEN xmin = pg_current_xact_id()::xid THEN rev ELSE rev + 1 END FROM access.policy_rev $$;

CREATE FUNCTION access.stamp_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.rev := access.changing_rev();
    RETURN NEW;
END $$;
CREATE TRIGGER token_rev BEFORE INSERT OR UPDATE OF id, tenant, account, secret_sha256, scopes, expires_at, revoked_at, issuers ON access.token
    FOR EACH ROW EXECUTE FUNCTION access.stamp_token();

CREATE FUNCTION access.stamp_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE access.policy_rev SET full_rev = access.changing_rev();
    RETURN NULL;
END $$;
CREATE TRIGGER token_gone AFTER DELETE ON access.token FOR EACH STATEMENT EXECUTE FUNCTION access.stamp_all();

CREATE FUNCTION access.stamp_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE access.tenant SET rev = access.changing_rev() WHERE name IN (SELECT tenant FROM changed);
    IF EXISTS (SELECT FROM changed WHERE tenant = '*') THEN
        UPDATE access.policy_rev SET full_rev = access.changing_rev();
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER account_new AFTER INSERT ON access.account REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION access.stamp_tenant();
CREATE TRIGGER account_set AFTER UPDATE ON access.account REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION access.stamp_tenant();
CREATE TRIGGER account_gone AFTER DELETE ON access.account REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION access.stamp_tenant();
CREATE TRIGGER rule_new AFTER INSERT ON access.rule REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION access.stamp_tenant();
CREATE TRIGGER rule_set AFTER UPDATE ON access.rule REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION access.stamp_tenant();
CREATE TRIGGER rule_gone AFTER DELETE ON access.rule REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION access.stamp_tenant();
CREATE TRIGGER binding_new AFTER INSERT ON access.binding REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION access.stamp_tenant();
CREATE TRIGGER binding_set AFTER UPDATE ON access.binding REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION access.stamp_tenant();
CREATE TRIGGER binding_gone AFTER DELETE ON access.binding REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION access.stamp_tenant();
