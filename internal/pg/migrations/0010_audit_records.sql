-- The record of a decision is final like its leaf. Takes a short lock on audit.decision and audit.checkpoint.
CREATE TRIGGER decision_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.decision
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER checkpoint_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
