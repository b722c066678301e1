-- What takes as long as making a training set is a build as well: making one again to compare, and making its variants.
-- Takes a lock for a moment: constant defaults are not written into rows, and the table holds the builds of 30 days.
ALTER TABLE featurestore.training_set_build
    ADD COLUMN kind        text  NOT NULL DEFAULT 'create' CHECK (kind IN ('create', 'rebuild', 'ablate')),
    ADD COLUMN base        text  NOT NULL DEFAULT '', -- digest of the training set that is rebuilt or ablated
    ADD COLUMN groups      jsonb NOT NULL DEFAULT '[]', -- of an ablation: what each variant goes without; none: one for every view
    ADD COLUMN explanation text  NOT NULL DEFAULT ''; -- of a rebuild that is done: why the bytes differ
COMMENT ON COLUMN featurestore.training_set_build.digest IS 'when it is done: of the training set, of the rebuilt file, or of the manifest of the ablation';
COMMENT ON COLUMN featurestore.training_set_build.content IS 'hex SHA-256 of the recipe, or of the kind, base and groups: who asks for the same while it is made waits for the same build';
