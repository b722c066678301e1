// Generated from proto/waybill.swagger.json by "npm run gen". Do not edit.

export interface paths {
    "/v1/accounts": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListAccounts lists the accounts of the caller's tenant with their roles. */
        get: operations["AccessService_ListAccounts"];
        put?: never;
        /** CreateAccount adds a person or a service account to the caller's tenant. */
        post: operations["AccessService_CreateAccount"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/accounts/{account}/roles": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** BindRole gives an account a role. */
        post: operations["AccessService_BindRole"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/accounts/{account}/roles/{role}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** UnbindRole takes a role from an account. */
        delete: operations["AccessService_UnbindRole"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/activity": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetActivity counts decisions and fallbacks per minute. */
        get: operations["DecisionService_GetActivity"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/decide/{endpoint}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Decide asks an endpoint for a decision. Over REST the body is the endpoint's own request and the answer its own
         *     answer; the header Idempotency-Key makes it safe to repeat.
         */
        post: operations["DecisionService_Decide"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/decisions": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** SearchDecisions finds decisions, newest first. */
        get: operations["DecisionService_SearchDecisions"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/decisions/{decision_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetDecision returns the waybill of one decision: all that is needed to understand and to check it. */
        get: operations["DecisionService_GetDecision"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/decisions/{decision_id}/outcome": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** ReportOutcome records what really happened. Later reports correct earlier ones; none is lost. */
        post: operations["DecisionService_ReportOutcome"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/decisions/{decision_id}/proof": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetDecisionProof returns the leaf of a decision, its inclusion proof and a signed checkpoint. */
        get: operations["AuditService_GetDecisionProof"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/decisions/{decision_id}:replay": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** ReplayDecision runs the decision again from its record and says whether the score is the same bit for bit. */
        post: operations["DecisionService_ReplayDecision"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/drift/{endpoint}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetReport compares reference and production per feature. */
        get: operations["DriftService_GetReport"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/endpoints": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListEndpoints lists endpoints with the state of their current revision. */
        get: operations["DecisionService_ListEndpoints"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/endpoints/{endpoint}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetEndpoint returns one endpoint with its current revision's document. */
        get: operations["DecisionService_GetEndpoint"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/endpoints:publish": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** PublishEndpoint publishes a revision from a YAML document. The same document twice changes nothing. */
        post: operations["DecisionService_PublishEndpoint"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/features:apply": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** ApplyDefinitions publishes views and services in one transaction. */
        post: operations["FeatureStoreService_ApplyDefinitions"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/features:plan": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** PlanDefinitions says in words what applying the documents would change. Nothing is written. */
        post: operations["FeatureStoreService_PlanDefinitions"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/features:retire": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * RetireDefinition takes a view or service version out of use, for ever: it takes no rows in and nothing new is made of
         *     it. Refused with the list of who reads it while somebody does.
         */
        post: operations["FeatureStoreService_RetireDefinition"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/incidents": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListIncidents lists incidents, newest first. */
        get: operations["DriftService_ListIncidents"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/incidents/{incident_id}:resolve": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** ResolveIncident closes an incident with a reason. */
        post: operations["DriftService_ResolveIncident"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/lineage": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetLineage walks up or down from a node. A decision ("decision:<id>") starts at what it used. */
        get: operations["LineageService_GetLineage"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/log": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetLog returns the size, root and latest checkpoint. */
        get: operations["AuditService_GetLog"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/log/entries": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListEntries lists leaves of the caller's tenant, newest first. */
        get: operations["AuditService_ListEntries"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/log:verify": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** VerifyLog re-hashes the log on the hub and names the first bad entry. */
        post: operations["AuditService_VerifyLog"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/model-versions": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListModelVersions lists versions of one model, or of all when model is empty, newest first. */
        get: operations["RegistryService_ListModelVersions"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListModels lists models with their latest version and aliases. */
        get: operations["RegistryService_ListModels"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetModelVersion returns one version with manifest and approvals. "model" may be "name", "name@v2" or "name@champion". */
        get: operations["RegistryService_GetModelVersion"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model}/aliases/{alias}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /** SetAlias points an alias such as "champion" at a version; the history is kept. */
        put: operations["RegistryService_SetAlias"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model}/versions": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** CreateModelVersion makes the next draft version of a model (and the model when it is new). */
        post: operations["RegistryService_CreateModelVersion"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model}:approve": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** ApproveModelVersion records the consent of someone other than the author, bound to the root digest. */
        post: operations["RegistryService_ApproveModelVersion"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model}:reject": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** RejectModelVersion refuses a submitted version. */
        post: operations["RegistryService_RejectModelVersion"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model}:revoke": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** RevokeModelVersion withdraws an approval; every endpoint on every node stops using the version within a second. */
        post: operations["RegistryService_RevokeModelVersion"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model}:submit": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** SubmitModelVersion freezes a draft: no byte changes afterwards. */
        post: operations["RegistryService_SubmitModelVersion"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/monitors": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListMonitors lists monitors. */
        get: operations["DriftService_ListMonitors"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/monitors/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /** PutMonitor creates or changes a monitor. */
        put: operations["DriftService_PutMonitor"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/monitors/{name}:run": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** RunMonitor evaluates a monitor now. */
        post: operations["DriftService_RunMonitor"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/policy/rules": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListRules lists the policy of the caller's tenant, built-in roles included. */
        get: operations["AccessService_ListRules"];
        put?: never;
        /** AddRule adds an allow or deny rule for a role or an account. Deny wins. */
        post: operations["AccessService_AddRule"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/policy/rules:remove": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** RemoveRule removes a rule that AddRule made. */
        post: operations["AccessService_RemoveRule"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/policy:explain": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ExplainAccess answers "why can X do Y": the deciding rule, the roles and the policy revision. */
        get: operations["AccessService_ExplainAccess"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/services": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListServices lists the latest version of every feature service. */
        get: operations["FeatureStoreService_ListServices"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/services/{service}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetService returns one service version. */
        get: operations["FeatureStoreService_GetService"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/services/{service}:read": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** ReadOnline returns the outputs of a service for some entities, with an honest status for every value. */
        post: operations["FeatureStoreService_ReadOnline"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/tenants": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** CreateTenant makes an empty tenant with one administrator and returns that administrator's first token. */
        post: operations["AccessService_CreateTenant"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/tokens": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListTokens lists tokens without their secrets. */
        get: operations["AccessService_ListTokens"];
        put?: never;
        /** IssueToken makes a token for an account. The secret is shown this once. */
        post: operations["AccessService_IssueToken"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/tokens/{token_id}:revoke": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** RevokeToken ends a token on every node within a second. */
        post: operations["AccessService_RevokeToken"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/training-set-builds": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListTrainingSetBuilds lists builds of training sets, newest first. They are forgotten 30 days after they ended. */
        get: operations["FeatureStoreService_ListTrainingSetBuilds"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/training-set-builds/{build_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetTrainingSetBuild says how far a build is and, when it is done, what came of it. */
        get: operations["FeatureStoreService_GetTrainingSetBuild"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/training-set-builds/{build_id}:cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * CancelTrainingSetBuild ends a build without a training set. To cancel it again changes nothing; what has ended otherwise,
         *     or is being stored, is refused.
         */
        post: operations["FeatureStoreService_CancelTrainingSetBuild"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/training-sets": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListTrainingSets lists training sets, newest first. */
        get: operations["FeatureStoreService_ListTrainingSets"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/training-sets/{digest}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetTrainingSet returns one training set's recipe and statistics. */
        get: operations["FeatureStoreService_GetTrainingSet"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/training-sets/{digest}:ablate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * AblateTrainingSet makes the variants of a training set that go without one group of features each. The work is a build's
         *     and goes on when the caller goes away; who asks for the same meanwhile waits for it.
         */
        post: operations["FeatureStoreService_AblateTrainingSet"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/training-sets/{digest}:rebuild": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * RebuildTrainingSet makes it again from its recipe and compares the bytes. The work is a build's and goes on when the
         *     caller goes away; who asks for the same meanwhile waits for it.
         */
        post: operations["FeatureStoreService_RebuildTrainingSet"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/views": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** ListViews lists the latest version of every view. */
        get: operations["FeatureStoreService_ListViews"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/views/{view}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** GetView returns one view version ("name" for the latest, "name@v2" for one). */
        get: operations["FeatureStoreService_GetView"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/views/{view}/quarantine": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * ListQuarantine lists the rows of a view version that were not accepted and wait, newest first. Who may write to a view
         *     may see what it did not take.
         */
        get: operations["FeatureStoreService_ListQuarantine"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/views/{view}/quarantine:clear": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** ClearQuarantine deletes waiting rows of a view version. The counts of their batches stay. */
        post: operations["FeatureStoreService_ClearQuarantine"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/views/{view}:push": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** PushRows appends rows to a view's log. Idempotent by batch_id. */
        post: operations["FeatureStoreService_PushRows"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/whoami": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** WhoAmI returns the caller as the hub sees it. */
        get: operations["AccessService_WhoAmI"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description AblateTrainingSetRequest names the training set and the groups; no groups means one for every view. */
        AblateTrainingSetBody: {
            groups?: components["schemas"]["AblationGroup"][];
            /** answer with the build when it has begun, without the variants */
            start_only?: boolean;
        };
        /** @description AblateTrainingSetResponse is the variants and the manifest that names them all, or the build when that was asked for. */
        AblateTrainingSetResponse: {
            base?: components["schemas"]["TrainingSet"];
            variants?: components["schemas"]["AblationVariant"][];
            /**
             * JSON
             * Format: byte
             */
            manifest?: string;
            /** hex SHA-256 */
            manifest_digest?: string;
            build?: components["schemas"]["TrainingSetBuild"];
        };
        /** @description AblationGroup is what one variant goes without: features, and every expression that reads one of them. */
        AblationGroup: {
            name?: string;
            /** "view:feature" or a feature's own name; none: all of the view called name */
            features?: string[];
        };
        /** @description AblationVariant is a training set without one group. */
        AblationVariant: {
            group?: string;
            training_set?: components["schemas"]["TrainingSet"];
        };
        /** @description Account is a person or a service account. */
        Account: {
            account?: string;
            /** "person" or "service" */
            kind?: string;
            display_name?: string;
            roles?: string[];
        };
        /** @description ActivityBucket counts one minute. */
        ActivityBucket: {
            /** Format: date-time */
            start?: string;
            /** Format: int64 */
            decisions?: string;
            /** Format: int64 */
            fallbacks?: string;
        };
        /** @description AddRuleRequest carries the rule. */
        AddRuleRequest: {
            rule?: components["schemas"]["Rule"];
        };
        /** @description AddRuleResponse carries the policy revision from which the change holds. */
        AddRuleResponse: {
            /** Format: int64 */
            policy_rev?: string;
        };
        /** @description ApplyDefinitionsRequest carries YAML documents and the reason for the edit. */
        ApplyDefinitionsRequest: {
            yaml?: string;
            reason?: string;
        };
        /** @description ApplyDefinitionsResponse lists the changes made. */
        ApplyDefinitionsResponse: {
            changes?: components["schemas"]["Change"][];
        };
        /** @description Approval is a recorded consent, refusal or withdrawal. */
        Approval: {
            approval_id?: string;
            /** "approve", "reject" or "revoke" */
            kind?: string;
            actor?: string;
            reason?: string;
            /** the root digest it binds */
            digest?: string;
            /** Format: date-time */
            at?: string;
        };
        /** @description ApproveModelVersionRequest names the version and the digest that was looked at. */
        ApproveModelVersionBody: {
            digest?: string;
            reason?: string;
        };
        /** @description ApproveModelVersionResponse is the approved version. */
        ApproveModelVersionResponse: {
            version?: components["schemas"]["ModelVersion"];
        };
        /** @description BindRoleRequest names account and role. */
        BindRoleBody: {
            role?: string;
        };
        /** @description BindRoleResponse carries the policy revision from which the change holds. */
        BindRoleResponse: {
            /** Format: int64 */
            policy_rev?: string;
        };
        /** @description CancelTrainingSetBuildRequest names it. */
        CancelTrainingSetBuildBody: Record<string, never>;
        /** @description CancelTrainingSetBuildResponse is the build as it is now. */
        CancelTrainingSetBuildResponse: {
            build?: components["schemas"]["TrainingSetBuild"];
        };
        /** @description Candidate is one option that was ranked. */
        Candidate: {
            action?: string;
            /** Format: double */
            score?: number;
            /** Format: double */
            cost?: number;
            eligible?: boolean;
            blocked_by?: string;
        };
        /** @description Cell is one value with where it came from. */
        Cell: {
            value?: unknown;
            /** PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE, FALLBACK */
            status?: string;
            /** Format: date-time */
            event_time?: string;
            /** Format: int64 */
            sequence?: string;
            /** "view@v1" whose row stands in for that of the view asked for; "" otherwise */
            view?: string;
        };
        /** @description Change is one difference between what is published and what was given. */
        Change: {
            /** "view" or "service" */
            kind?: string;
            /** what exists after the change, e.g. "warehouse_load@v2" */
            ref?: string;
            /** "create", "version", "revision" or "none" */
            action?: string;
            /** in words */
            summary?: string;
            /** what differs from the version before, in words; what makes a new version comes first */
            details?: string[];
            /** what goes on reading the version before: "service:a@v1", "model:b@v2", "endpoint:c@v3" */
            readers?: string[];
        };
        /** @description ClearQuarantineRequest names a view or view version, and one batch or ("") all of them. */
        ClearQuarantineBody: {
            batch_id?: string;
            /** for the log */
            reason?: string;
        };
        /** @description ClearQuarantineResponse counts the rows that are gone. */
        ClearQuarantineResponse: {
            /** Format: int64 */
            rows?: string;
        };
        /** @description ColumnStats describes one column of a training set. */
        ColumnStats: {
            name?: string;
            type?: string;
            /** Format: int64 */
            rows?: string;
            /** Format: int64 */
            nulls?: string;
            /** Format: double */
            mean?: number;
            /** Format: double */
            std?: number;
            /** Format: double */
            min?: number;
            /** Format: double */
            max?: number;
        };
        /** @description Commit is one accepted write. When no row of a batch was good there is no commit: sequence and rows are 0. */
        Commit: {
            /** "name@v1" */
            view?: string;
            /** Format: int64 */
            sequence?: string;
            /** Format: int64 */
            rows?: string;
            digest?: string;
            /** Format: date-time */
            min_event_time?: string;
            /** Format: date-time */
            max_event_time?: string;
            /** Format: date-time */
            committed_at?: string;
            actor?: string;
            /** the batch id had been accepted before */
            duplicate?: boolean;
            /**
             * rows of the batch that were not accepted and wait in the quarantine
             * Format: int64
             */
            quarantined?: string;
        };
        /** @description CreateAccountRequest describes the account. */
        CreateAccountRequest: {
            account?: string;
            kind?: string;
            display_name?: string;
            roles?: string[];
        };
        /** @description CreateAccountResponse is the account as created. */
        CreateAccountResponse: {
            account?: components["schemas"]["Account"];
        };
        /** @description CreateModelVersionRequest describes the version. */
        CreateModelVersionBody: {
            format?: string;
            entrypoint?: string;
            feature_service?: string;
            training_set?: string;
            metrics?: {
                [key: string]: number;
            };
            description?: string;
            intended_use?: string;
            automation?: string;
            tags?: {
                [key: string]: string;
            };
        };
        /** @description CreateModelVersionResponse is the draft. */
        CreateModelVersionResponse: {
            version?: components["schemas"]["ModelVersion"];
        };
        /** @description CreateTenantRequest names the tenant and its first administrator. */
        CreateTenantRequest: {
            tenant?: string;
            admin?: string;
        };
        /** @description CreateTenantResponse carries the administrator's token, shown this once. */
        CreateTenantResponse: {
            tenant?: string;
            admin?: string;
            token?: string;
        };
        /** @description DecideResponse carries the answer in the endpoint's own shape, with decision_id and receipt inside. */
        DecideResponse: {
            answer?: Record<string, never>;
        };
        /** @description Decision is the waybill of one decision. */
        Decision: {
            summary?: components["schemas"]["DecisionSummary"];
            /** the verdict in plain words */
            sentence?: string;
            request?: Record<string, never>;
            answer?: Record<string, never>;
            inputs?: components["schemas"]["Input"][];
            /**
             * expected raw score: contributions + base = raw
             * Format: double
             */
            base?: number;
            /** Format: double */
            raw?: number;
            /**
             * |base + Σ contributions − raw|
             * Format: double
             */
            residual?: number;
            candidates?: components["schemas"]["Candidate"][];
            gates?: components["schemas"]["GateVerdict"][];
            outcomes?: components["schemas"]["Outcome"][];
            feature_service?: string;
            model_digest?: string;
            training_set?: string;
            /** of the model or of the rules, whichever answered */
            approver?: string;
            /** Format: date-time */
            approved_at?: string;
            approval_reason?: string;
            /** is the approval still in force? */
            model_state_now?: string;
            /** Format: int64 */
            policy_rev?: string;
            /** who asked */
            actor?: string;
            /** the exact bytes in the log */
            leaf?: string;
            /** Format: double */
            latency_ms?: number;
            fallback_reason?: string;
            /** "late-risk@v1", a model or a rule set; empty when a gate blocked */
            answered_by?: string;
        };
        /** @description DecisionSummary is one row of a search. */
        DecisionSummary: {
            decision_id?: string;
            endpoint?: string;
            /** Format: int32 */
            revision?: number;
            business_key?: string;
            /** "name@v1"; empty when the fallback answered */
            model?: string;
            action?: string;
            /** Format: double */
            score?: number;
            /** reason; empty when the model answered */
            fallback?: string;
            gates?: string[];
            /** Format: date-time */
            decided_at?: string;
            /**
             * in the log
             * Format: int64
             */
            index?: string;
        };
        /** @description Edge says that "to" came from "from". */
        Edge: {
            from?: string;
            to?: string;
            kind?: string;
        };
        /** @description Endpoint is one endpoint and the revision in force. */
        Endpoint: {
            name?: string;
            /** Format: int32 */
            revision?: number;
            /** "score" or "rank" */
            kind?: string;
            /** "name@v1" */
            model?: string;
            /** e.g. "approved"; anything else means that the fallback answers */
            model_state?: string;
            /** "name@v1" of the rule set */
            fallback?: string;
            feature_service?: string;
            digest?: string;
            author?: string;
            reason?: string;
            /** Format: date-time */
            published_at?: string;
            yaml?: string;
            /** in words: who answers now and why */
            serving?: string;
        };
        /** @description Entry is one leaf. */
        Entry: {
            /** Format: int64 */
            index?: string;
            type?: string;
            /** Format: date-time */
            recorded_at?: string;
            leaf?: string;
            /** base64 */
            leaf_hash?: string;
        };
        /** @description ExplainAccessResponse says whether and why. */
        ExplainAccessResponse: {
            allowed?: boolean;
            rule?: components["schemas"]["Rule"];
            roles?: string[];
            /** Format: int64 */
            policy_rev?: string;
        };
        /** @description Expression is an on-demand feature: CEL over inputs and features. */
        Expression: {
            name?: string;
            type?: string;
            expr?: string;
        };
        /** @description FeatureDrift compares one feature. */
        FeatureDrift: {
            feature?: string;
            /** cut points: bin i holds values from edge i-1 up to, not including, edge i; the outer bins are open */
            edges?: number[];
            /** counts per bin, one more than edges */
            reference?: string[];
            production?: string[];
            /** Format: int64 */
            reference_missing?: string;
            /** Format: int64 */
            production_missing?: string;
            /** Format: double */
            psi?: number;
            /** Format: double */
            kl?: number;
            /** Format: double */
            js?: number;
            /** Format: double */
            ks?: number;
            /** Format: double */
            wasserstein?: number;
        };
        /** @description FeatureRow holds one cell for each name, in order. */
        FeatureRow: {
            cells?: components["schemas"]["Cell"][];
        };
        /** @description Field is one typed column. */
        Field: {
            name?: string;
            type?: string;
            sensitivity?: string;
            description?: string;
            /** null is refused */
            required?: boolean;
            /** Format: double */
            min?: number;
            /** Format: double */
            max?: number;
            /** the only texts allowed */
            values?: string[];
            /** RE2, matched from the first to the last character */
            pattern?: string;
            /**
             * in bytes; 0 is the hub's own bound
             * Format: int32
             */
            max_length?: number;
        };
        /** @description File is one artifact of a version. */
        File: {
            path?: string;
            /** Format: int64 */
            size_bytes?: string;
            /** hex */
            sha256?: string;
        };
        /** @description GateVerdict is the answer of one gate. */
        GateVerdict: {
            gate?: string;
            /** "before" or "after" */
            stage?: string;
            /** "allow", "block", "fallback", "review" */
            verdict?: string;
            reason?: string;
        };
        /** @description GetActivityResponse lists the buckets, oldest first. */
        GetActivityResponse: {
            buckets?: components["schemas"]["ActivityBucket"][];
            /** Format: int64 */
            decisions?: string;
            /** Format: int64 */
            fallbacks?: string;
        };
        /** @description GetDecisionProofResponse verifies without us: RFC 6962 hashes, C2SP checkpoint. */
        GetDecisionProofResponse: {
            /** Format: int64 */
            index?: string;
            leaf?: string;
            /** base64 */
            leaf_hash?: string;
            /** base64 sibling hashes, leaf upwards */
            path?: string[];
            /**
             * of the tree the path leads to
             * Format: int64
             */
            size?: string;
            /** base64 */
            root?: string;
            checkpoint?: string;
            verifier_key?: string;
            /** the same as a c2sp.org/tlog-proof@v1 file */
            tlog_proof?: string;
            /**
             * @description The record beside the log: request, answer, inputs, contributions, gates as JSON. Its SHA-256 is the leaf's payload.
             *     Empty for callers who may not see all of it.
             */
            payload?: string;
        };
        /** @description GetDecisionResponse is the decision. */
        GetDecisionResponse: {
            decision?: components["schemas"]["Decision"];
        };
        /** @description GetEndpointResponse is the endpoint. */
        GetEndpointResponse: {
            endpoint?: components["schemas"]["Endpoint"];
        };
        /** @description GetLineageResponse is the graph around the node. */
        GetLineageResponse: {
            nodes?: components["schemas"]["Node"][];
            edges?: components["schemas"]["Edge"][];
            truncated?: boolean;
        };
        /** @description GetLogResponse describes the log. */
        GetLogResponse: {
            origin?: string;
            /** Format: int32 */
            log_id?: number;
            /** Format: int64 */
            size?: string;
            /** base64 */
            root?: string;
            /** C2SP signed note */
            checkpoint?: string;
            verifier_key?: string;
            /** Format: date-time */
            published_at?: string;
        };
        /** @description GetModelVersionResponse is the version. */
        GetModelVersionResponse: {
            version?: components["schemas"]["ModelVersion"];
        };
        /** @description GetReportResponse lists features by PSI, highest first. */
        GetReportResponse: {
            endpoint?: string;
            model?: string;
            /** digest of the training set */
            reference?: string;
            features?: components["schemas"]["FeatureDrift"][];
            /** Format: date-time */
            from?: string;
            /** Format: date-time */
            to?: string;
        };
        /** @description GetServiceResponse is the service version. */
        GetServiceResponse: {
            service?: components["schemas"]["Service"];
        };
        /**
         * @description GetTrainingSetBuildResponse is the build, and what came of it when it is done: of a rebuild or an ablation here, of another
         *     the training set by its digest.
         */
        GetTrainingSetBuildResponse: {
            build?: components["schemas"]["TrainingSetBuild"];
            rebuild?: components["schemas"]["RebuildTrainingSetResponse"];
            ablation?: components["schemas"]["AblateTrainingSetResponse"];
        };
        /** @description GetTrainingSetResponse is the training set. */
        GetTrainingSetResponse: {
            training_set?: components["schemas"]["TrainingSet"];
        };
        /** @description GetViewResponse is the view version and the numbers of all versions. */
        GetViewResponse: {
            view?: components["schemas"]["View"];
            versions?: number[];
        };
        /** @description Incident is one cause with its blast radius. */
        Incident: {
            incident_id?: string;
            title?: string;
            /** open or resolved */
            state?: string;
            endpoint?: string;
            model?: string;
            features?: string[];
            /** lineage nodes */
            affected?: string[];
            monitor?: string;
            /** Format: date-time */
            opened_at?: string;
            /** Format: date-time */
            resolved_at?: string;
            resolved_by?: string;
            reason?: string;
        };
        /** @description Input is one value that went into the model. */
        Input: {
            name?: string;
            value?: unknown;
            /** of the value then; HIDDEN for one of the class secret that the caller may not see */
            status?: string;
            /** "name@v1"; empty for request inputs and expressions */
            view?: string;
            /**
             * the commit that wrote it
             * Format: int64
             */
            sequence?: string;
            /** Format: date-time */
            event_time?: string;
            /** Format: double */
            age_seconds?: number;
            /**
             * to the raw score (log-odds for a binary model)
             * Format: double
             */
            contribution?: number;
            /** @description What an expression computed it from: "request", or views as "name@v1". Empty for what was read or given. */
            sources?: string[];
        };
        /** @description IssueTokenRequest names the account, the time to live and, optionally, the only actions the token may be used for. */
        IssueTokenRequest: {
            account?: string;
            /**
             * 1 to 31,536,000 (a year)
             * Format: int64
             */
            ttl_seconds?: string;
            scopes?: string[];
        };
        /** @description IssueTokenResponse carries the token text, shown this once. */
        IssueTokenResponse: {
            token?: components["schemas"]["Token"];
            secret?: string;
        };
        /** @description ListAccountsResponse is one page. */
        ListAccountsResponse: {
            accounts?: components["schemas"]["Account"][];
            next_page_token?: string;
        };
        /** @description ListEndpointsResponse is one page. */
        ListEndpointsResponse: {
            endpoints?: components["schemas"]["Endpoint"][];
            next_page_token?: string;
        };
        /** @description ListEntriesResponse is one page. */
        ListEntriesResponse: {
            entries?: components["schemas"]["Entry"][];
            next_page_token?: string;
        };
        /** @description ListIncidentsResponse is one page. */
        ListIncidentsResponse: {
            incidents?: components["schemas"]["Incident"][];
            next_page_token?: string;
        };
        /** @description ListModelVersionsResponse is one page. */
        ListModelVersionsResponse: {
            versions?: components["schemas"]["ModelVersion"][];
            next_page_token?: string;
        };
        /** @description ListModelsResponse is one page. */
        ListModelsResponse: {
            models?: components["schemas"]["Model"][];
            next_page_token?: string;
        };
        /** @description ListMonitorsResponse is one page. */
        ListMonitorsResponse: {
            monitors?: components["schemas"]["Monitor"][];
            next_page_token?: string;
        };
        /** @description ListQuarantineResponse is one page. */
        ListQuarantineResponse: {
            rows?: components["schemas"]["QuarantinedRow"][];
            next_page_token?: string;
        };
        /** @description ListRulesResponse is one page. */
        ListRulesResponse: {
            rules?: components["schemas"]["Rule"][];
            next_page_token?: string;
            /** Format: int64 */
            policy_rev?: string;
        };
        /** @description ListServicesResponse is one page. */
        ListServicesResponse: {
            services?: components["schemas"]["Service"][];
            next_page_token?: string;
        };
        /** @description ListTokensResponse is one page. */
        ListTokensResponse: {
            tokens?: components["schemas"]["Token"][];
            next_page_token?: string;
        };
        /** @description ListTrainingSetBuildsResponse is one page. */
        ListTrainingSetBuildsResponse: {
            builds?: components["schemas"]["TrainingSetBuild"][];
            next_page_token?: string;
        };
        /** @description ListTrainingSetsResponse is one page. */
        ListTrainingSetsResponse: {
            training_sets?: components["schemas"]["TrainingSet"][];
            next_page_token?: string;
        };
        /** @description ListViewsResponse is one page. */
        ListViewsResponse: {
            views?: components["schemas"]["View"][];
            next_page_token?: string;
        };
        /** @description Model is a name with its newest version and aliases. */
        Model: {
            name?: string;
            latest?: components["schemas"]["ModelVersion"];
            aliases?: {
                [key: string]: number;
            };
            /** Format: int32 */
            versions?: number;
        };
        /** @description ModelVersion is one version of a model. */
        ModelVersion: {
            model?: string;
            /** Format: int32 */
            version?: number;
            /** draft, submitted, approved, rejected, revoked, retired, expired */
            state?: string;
            /** "sha256:…" root of the manifest; empty while draft */
            digest?: string;
            /** "lightgbm", "xgboost" or "rules" */
            format?: string;
            entrypoint?: string;
            feature_service?: string;
            training_set?: string;
            metrics?: {
                [key: string]: number;
            };
            description?: string;
            intended_use?: string;
            /** advisory, human_in_loop, solely_automated */
            automation?: string;
            tags?: {
                [key: string]: string;
            };
            author?: string;
            /** Format: date-time */
            created_at?: string;
            files?: components["schemas"]["File"][];
            approvals?: components["schemas"]["Approval"][];
            aliases?: string[];
            /** in words: what is missing before it may serve; empty when approved */
            needs?: string;
            /** "v1: reason" when another version of this model with the same root digest was revoked */
            revoked_as?: string;
        };
        /** @description Monitor is a watch with a limit. */
        Monitor: {
            name?: string;
            endpoint?: string;
            /** "*" for all */
            feature?: string;
            /** psi, kl, js, ks or wasserstein */
            statistic?: string;
            /** Format: double */
            limit?: number;
            /** Format: int64 */
            min_sample?: string;
            /** Format: int64 */
            window_seconds?: string;
            author?: string;
        };
        /** @description Node is one version of something. */
        Node: {
            id?: string;
            kind?: string;
            label?: string;
            /**
             * hops from the focus; negative upstream
             * Format: int32
             */
            depth?: number;
        };
        /**
         * @description Represents a JSON `null`.
         *
         *     `NullValue` is a sentinel, using an enum with only one value to represent
         *     the null value for the `Value` type union.
         *
         *     A field of type `NullValue` with any value other than `0` is considered
         *     invalid. Most ProtoJSON serializers will emit a `Value` with a `null_value`
         *     set as a JSON `null` regardless of the integer value, and so will round trip
         *     to a `0` value.
         *
         *      - NULL_VALUE: Null value.
         * @default NULL_VALUE
         * @enum {string}
         */
        NullValue: "NULL_VALUE";
        /** @description Outcome is one report of what happened. */
        Outcome: {
            name?: string;
            value?: unknown;
            /** Format: date-time */
            event_time?: string;
            /** Format: date-time */
            reported_at?: string;
            actor?: string;
        };
        /** @description PlanDefinitionsRequest carries YAML documents (kind: View, Service). */
        PlanDefinitionsRequest: {
            yaml?: string;
        };
        /** @description PlanDefinitionsResponse lists the changes. */
        PlanDefinitionsResponse: {
            changes?: components["schemas"]["Change"][];
        };
        /** @description PublishEndpointRequest carries one YAML document (kind: Endpoint) and the reason. */
        PublishEndpointRequest: {
            yaml?: string;
            reason?: string;
        };
        /** @description PublishEndpointResponse is the endpoint. */
        PublishEndpointResponse: {
            endpoint?: components["schemas"]["Endpoint"];
            changed?: boolean;
        };
        /**
         * @description PushRowsRequest carries at most 10,000 rows: join keys, features and event_time (RFC 3339) by name. Numbers here are doubles:
         *     give int64 values from 2^53 on and decimals of more than 15 digits as strings; otherwise they are refused, by name. Over REST
         *     they may be JSON numbers: one of more than 15 digits is taken as the string of its digits.
         */
        PushRowsBody: {
            /** 1 to 128 characters; the same id is accepted once */
            batch_id?: string;
            rows?: Record<string, never>[];
            /** of bad rows: "reject" (default) writes nothing, "quarantine" takes the others and lets these wait */
            mode?: string;
        };
        /** @description PushRowsResponse is the commit. */
        PushRowsResponse: {
            commit?: components["schemas"]["Commit"];
        };
        /** @description PutMonitorRequest describes the monitor. */
        PutMonitorBody: {
            endpoint?: string;
            feature?: string;
            statistic?: string;
            /** Format: double */
            limit?: number;
            /** Format: int64 */
            min_sample?: string;
            /** Format: int64 */
            window_seconds?: string;
        };
        /** @description PutMonitorResponse is the monitor. */
        PutMonitorResponse: {
            monitor?: components["schemas"]["Monitor"];
        };
        /** @description QuarantineReason says what is wrong with one field of a row. */
        QuarantineReason: {
            field?: string;
            remedy?: string;
        };
        /** @description QuarantinedRow is a row that was not accepted. */
        QuarantinedRow: {
            /** Format: int64 */
            id?: string;
            /** "name@v1" */
            view?: string;
            batch_id?: string;
            /**
             * commit of the accepted rows of its batch; 0 when there were none
             * Format: int64
             */
            sequence?: string;
            /**
             * within the batch, from 1
             * Format: int64
             */
            row_number?: string;
            reasons?: components["schemas"]["QuarantineReason"][];
            /** as it came; personal text is a token, other personal values are left out */
            row?: Record<string, never>;
            /** Format: date-time */
            at?: string;
            actor?: string;
        };
        /** @description ReadOnlineRequest: rows hold the service's inputs and join keys by name; at most 1,000. */
        ReadOnlineBody: {
            rows?: Record<string, never>[];
            /** per view: wait until the commit is visible */
            min_sequence?: {
                [key: string]: string;
            };
        };
        /** @description ReadOnlineResponse has one row for each row asked for. */
        ReadOnlineResponse: {
            /** the version read */
            service?: string;
            names?: string[];
            rows?: components["schemas"]["FeatureRow"][];
            /** per view version: the commit up to which it was read, all rows at one */
            sequences?: {
                [key: string]: string;
            };
        };
        /** @description RebuildTrainingSetRequest names it by digest. */
        RebuildTrainingSetBody: {
            /** answer with the build when it has begun, without the outcome */
            start_only?: boolean;
        };
        /** @description RebuildTrainingSetResponse says whether the bytes are equal and, if not, why; or is the build when that was asked for. */
        RebuildTrainingSetResponse: {
            equal?: boolean;
            rebuilt_digest?: string;
            explanation?: string;
            build?: components["schemas"]["TrainingSetBuild"];
        };
        /** @description RejectModelVersionRequest names the version and the reason. */
        RejectModelVersionBody: {
            reason?: string;
        };
        /** @description RejectModelVersionResponse is the rejected version. */
        RejectModelVersionResponse: {
            version?: components["schemas"]["ModelVersion"];
        };
        /** @description RemoveRuleRequest carries the rule. */
        RemoveRuleRequest: {
            rule?: components["schemas"]["Rule"];
        };
        /** @description RemoveRuleResponse carries the policy revision from which the change holds. */
        RemoveRuleResponse: {
            /** Format: int64 */
            policy_rev?: string;
        };
        /** @description ReplayDecisionRequest names the decision. */
        ReplayDecisionBody: Record<string, never>;
        /** @description ReplayDecisionResponse compares recorded and replayed. */
        ReplayDecisionResponse: {
            equal?: boolean;
            /** Format: double */
            recorded_score?: number;
            /** Format: double */
            replayed_score?: number;
            differences?: string[];
        };
        /** @description ReportOutcomeRequest carries one named outcome. */
        ReportOutcomeBody: {
            /** e.g. "late" */
            name?: string;
            value?: unknown;
            /** Format: date-time */
            event_time?: string;
        };
        /** @description ReportOutcomeResponse is the outcome as recorded. */
        ReportOutcomeResponse: {
            outcome?: components["schemas"]["Outcome"];
        };
        /** @description ResolveIncidentRequest names the incident and the reason. */
        ResolveIncidentBody: {
            reason?: string;
        };
        /** @description ResolveIncidentResponse is the incident. */
        ResolveIncidentResponse: {
            incident?: components["schemas"]["Incident"];
        };
        /** @description RetireDefinitionRequest names one version and says why. */
        RetireDefinitionRequest: {
            /** "view:name@v1" or "service:name@v1" */
            node?: string;
            reason?: string;
        };
        /** @description RetireDefinitionResponse is what was recorded. */
        RetireDefinitionResponse: {
            retired?: components["schemas"]["Retirement"];
        };
        /** @description Retirement says who took a version out of use, when and why. */
        Retirement: {
            node?: string;
            reason?: string;
            actor?: string;
            /** Format: date-time */
            retired_at?: string;
        };
        /** @description RevokeModelVersionRequest names the version and the reason. */
        RevokeModelVersionBody: {
            reason?: string;
        };
        /** @description RevokeModelVersionResponse is the revoked version. */
        RevokeModelVersionResponse: {
            version?: components["schemas"]["ModelVersion"];
        };
        /** @description RevokeTokenRequest names the token. */
        RevokeTokenBody: Record<string, never>;
        /** @description RevokeTokenResponse carries the policy revision from which the change holds. */
        RevokeTokenResponse: {
            /** Format: int64 */
            policy_rev?: string;
        };
        /** @description Rule is one line of policy. */
        Rule: {
            /** a role or an account */
            subject?: string;
            /** a resource or a pattern such as "model/*" */
            object?: string;
            action?: string;
            /** "allow" or "deny" */
            effect?: string;
            built_in?: boolean;
        };
        /** @description RunMonitorRequest names the monitor. */
        RunMonitorBody: Record<string, never>;
        /** @description RunMonitorResponse lists the verdicts and the incident they opened or kept open, if any. */
        RunMonitorResponse: {
            verdicts?: components["schemas"]["Verdict"][];
            incident_id?: string;
        };
        /** @description SearchDecisionsResponse is one page. */
        SearchDecisionsResponse: {
            decisions?: components["schemas"]["DecisionSummary"][];
            next_page_token?: string;
        };
        /** @description Service is one version of a feature service. */
        Service: {
            name?: string;
            /** Format: int32 */
            version?: number;
            inputs?: components["schemas"]["Field"][];
            /** "view@v1:feature" */
            features?: string[];
            expressions?: components["schemas"]["Expression"][];
            /** the vector, in order */
            outputs?: components["schemas"]["Field"][];
            owner?: string;
            description?: string;
            digest?: string;
            author?: string;
            /** Format: date-time */
            published_at?: string;
            retired?: components["schemas"]["Retirement"];
        };
        /** @description SetAliasRequest names model, alias and version number. */
        SetAliasBody: {
            /** Format: int32 */
            version?: number;
        };
        /** @description SetAliasResponse is the version that the alias now names. */
        SetAliasResponse: {
            version?: components["schemas"]["ModelVersion"];
        };
        /** @description SubmitModelVersionRequest names the version ("name@v1"). */
        SubmitModelVersionBody: Record<string, never>;
        /** @description SubmitModelVersionResponse is the frozen version. */
        SubmitModelVersionResponse: {
            version?: components["schemas"]["ModelVersion"];
        };
        /** @description Token is a token without its secret. */
        Token: {
            token_id?: string;
            account?: string;
            scopes?: string[];
            created_by?: string;
            /** Format: date-time */
            created_at?: string;
            /** Format: date-time */
            expires_at?: string;
            /** Format: date-time */
            revoked_at?: string;
            /** Format: date-time */
            last_used_at?: string;
        };
        /** @description TrainingSet is an immutable as-of join result. */
        TrainingSet: {
            /** hex SHA-256 of the Parquet file */
            digest?: string;
            name?: string;
            service?: string;
            /** Format: int64 */
            rows?: string;
            /** Format: int64 */
            size_bytes?: string;
            spine_digest?: string;
            label_column?: string;
            columns?: components["schemas"]["ColumnStats"][];
            author?: string;
            /** Format: date-time */
            created_at?: string;
            kernel?: string;
            full_names?: boolean;
            delay?: string;
            /** columns that were left out, sorted */
            without?: string[];
            /**
             * unset: each row's own time
             * Format: date-time
             */
            cutoff?: string;
            time_column?: string;
            spine_format?: string;
            /** view version → the last commit that was looked at */
            views?: {
                [key: string]: string;
            };
        };
        /** @description TrainingSetBuild is the making of a training set, of its bytes again, or of its variants. */
        TrainingSetBuild: {
            build_id?: string;
            /** waiting, running, storing; at the end done, failed or cancelled */
            state?: string;
            /** of the training set */
            name?: string;
            service?: string;
            /**
             * of the spine; 0 until it has been read
             * Format: int64
             */
            rows?: string;
            /**
             * every row counts once for each view it is looked up in, for the expressions, and for each file
             * Format: int64
             */
            rows_done?: string;
            /**
             * what rows_done is at the end; 0 until the spine has been read, without the files of variants until these are begun
             * Format: int64
             */
            rows_total?: string;
            /** when it is done: of the training set, of the rebuilt bytes, or of the manifest of the variants */
            digest?: string;
            /** why it failed, or, while it waits, why the last try did */
            error?: string;
            author?: string;
            /** Format: date-time */
            started_at?: string;
            /** Format: date-time */
            updated_at?: string;
            /** Format: date-time */
            ended_at?: string;
            /** create, rebuild or ablate */
            kind?: string;
            /** of the training set that is rebuilt or ablated */
            base_digest?: string;
        };
        /** @description UnbindRoleResponse carries the policy revision from which the change holds. */
        UnbindRoleResponse: {
            /** Format: int64 */
            policy_rev?: string;
        };
        /** @description Verdict is the result for one feature. */
        Verdict: {
            feature?: string;
            /** ok, drift, insufficient, no_reference */
            state?: string;
            /** Format: double */
            value?: number;
            /** Format: double */
            limit?: number;
            /** Format: int64 */
            sample?: string;
        };
        /** @description VerifyLogRequest is empty. */
        VerifyLogRequest: Record<string, never>;
        /** @description VerifyLogResponse is the result. */
        VerifyLogResponse: {
            ok?: boolean;
            /** Format: int64 */
            entries?: string;
            /**
             * -1 when ok
             * Format: int64
             */
            first_bad_index?: string;
            finding?: string;
            /** Format: double */
            seconds?: number;
        };
        /** @description View is one view version. */
        View: {
            name?: string;
            /** Format: int32 */
            version?: number;
            /** Format: int32 */
            revision?: number;
            entity?: string;
            keys?: components["schemas"]["Field"][];
            features?: components["schemas"]["Field"][];
            /** e.g. "6h0m0s"; "0s" means no bound */
            ttl?: string;
            owner?: string;
            description?: string;
            tags?: {
                [key: string]: string;
            };
            digest?: string;
            author?: string;
            reason?: string;
            /** Format: date-time */
            published_at?: string;
            /** Format: int64 */
            commits?: string;
            /** Format: int64 */
            rows?: string;
            /** Format: date-time */
            latest_event_time?: string;
            /** service versions that read it */
            consumers?: string[];
            /** source, license, fetch_time … of an external signal */
            external?: {
                [key: string]: string;
            };
            /** over the view's own keys and features */
            expressions?: components["schemas"]["Expression"][];
            /** "name@v1", the view that stands in where there is no row; "" for none */
            fallback?: string;
            /** join key of the fallback → the expression that gives it */
            fallback_keys?: {
                [key: string]: string;
            };
            retired?: components["schemas"]["Retirement"];
        };
        /** @description WhoAmIResponse is the caller. */
        WhoAmIResponse: {
            account?: string;
            tenant?: string;
            /** "person" or "service" */
            kind?: string;
            roles?: string[];
            /** Format: int64 */
            policy_rev?: string;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    AccessService_ListAccounts: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListAccountsResponse"];
                };
            };
        };
    };
    AccessService_CreateAccount: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** @description CreateAccountRequest describes the account. */
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateAccountRequest"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CreateAccountResponse"];
                };
            };
        };
    };
    AccessService_BindRole: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                account: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["BindRoleBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["BindRoleResponse"];
                };
            };
        };
    };
    AccessService_UnbindRole: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                account: string;
                role: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["UnbindRoleResponse"];
                };
            };
        };
    };
    DecisionService_GetActivity: {
        parameters: {
            query?: {
                minutes?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetActivityResponse"];
                };
            };
        };
    };
    DecisionService_Decide: {
        parameters: {
            query?: {
                /** @description over REST: the header Idempotency-Key; at most 128 characters */
                idempotency_key?: string;
            };
            header?: never;
            path: {
                endpoint: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": Record<string, never>;
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": Record<string, never>;
                };
            };
        };
    };
    DecisionService_SearchDecisions: {
        parameters: {
            query?: {
                endpoint?: string;
                /** @description e.g. the order id */
                business_key?: string;
                /** @description "name" or "name@v1" */
                model?: string;
                action?: string;
                gate?: string;
                fallback_only?: boolean;
                from?: string;
                to?: string;
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SearchDecisionsResponse"];
                };
            };
        };
    };
    DecisionService_GetDecision: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                decision_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetDecisionResponse"];
                };
            };
        };
    };
    DecisionService_ReportOutcome: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                decision_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ReportOutcomeBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReportOutcomeResponse"];
                };
            };
        };
    };
    AuditService_GetDecisionProof: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                decision_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetDecisionProofResponse"];
                };
            };
        };
    };
    DecisionService_ReplayDecision: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                decision_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ReplayDecisionBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReplayDecisionResponse"];
                };
            };
        };
    };
    DriftService_GetReport: {
        parameters: {
            query?: {
                from?: string;
                to?: string;
            };
            header?: never;
            path: {
                endpoint: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetReportResponse"];
                };
            };
        };
    };
    DecisionService_ListEndpoints: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListEndpointsResponse"];
                };
            };
        };
    };
    DecisionService_GetEndpoint: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                endpoint: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetEndpointResponse"];
                };
            };
        };
    };
    DecisionService_PublishEndpoint: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** @description PublishEndpointRequest carries one YAML document (kind: Endpoint) and the reason. */
        requestBody: {
            content: {
                "application/json": components["schemas"]["PublishEndpointRequest"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PublishEndpointResponse"];
                };
            };
        };
    };
    FeatureStoreService_ApplyDefinitions: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** @description ApplyDefinitionsRequest carries YAML documents and the reason for the edit. */
        requestBody: {
            content: {
                "application/json": components["schemas"]["ApplyDefinitionsRequest"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApplyDefinitionsResponse"];
                };
            };
        };
    };
    FeatureStoreService_PlanDefinitions: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** @description PlanDefinitionsRequest carries YAML documents (kind: View, Service). */
        requestBody: {
            content: {
                "application/json": components["schemas"]["PlanDefinitionsRequest"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanDefinitionsResponse"];
                };
            };
        };
    };
    FeatureStoreService_RetireDefinition: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** @description RetireDefinitionRequest names one version and says why. */
        requestBody: {
            content: {
                "application/json": components["schemas"]["RetireDefinitionRequest"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RetireDefinitionResponse"];
                };
            };
        };
    };
    DriftService_ListIncidents: {
        parameters: {
            query?: {
                state?: string;
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListIncidentsResponse"];
                };
            };
        };
    };
    DriftService_ResolveIncident: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                incident_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ResolveIncidentBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ResolveIncidentResponse"];
                };
            };
        };
    };
    LineageService_GetLineage: {
        parameters: {
            query?: {
                node?: string;
                /** @description "up", "down" or "both" (default) */
                direction?: string;
                /** @description nodes; default 300, at most 1,000 */
                limit?: number;
                as_of?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetLineageResponse"];
                };
            };
        };
    };
    AuditService_GetLog: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetLogResponse"];
                };
            };
        };
    };
    AuditService_ListEntries: {
        parameters: {
            query?: {
                type?: string;
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListEntriesResponse"];
                };
            };
        };
    };
    AuditService_VerifyLog: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** @description VerifyLogRequest is empty. */
        requestBody: {
            content: {
                "application/json": components["schemas"]["VerifyLogRequest"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["VerifyLogResponse"];
                };
            };
        };
    };
    RegistryService_ListModelVersions: {
        parameters: {
            query?: {
                model?: string;
                state?: string;
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListModelVersionsResponse"];
                };
            };
        };
    };
    RegistryService_ListModels: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListModelsResponse"];
                };
            };
        };
    };
    RegistryService_GetModelVersion: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                model: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetModelVersionResponse"];
                };
            };
        };
    };
    RegistryService_SetAlias: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                model: string;
                alias: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SetAliasBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SetAliasResponse"];
                };
            };
        };
    };
    RegistryService_CreateModelVersion: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                model: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateModelVersionBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CreateModelVersionResponse"];
                };
            };
        };
    };
    RegistryService_ApproveModelVersion: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                model: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ApproveModelVersionBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApproveModelVersionResponse"];
                };
            };
        };
    };
    RegistryService_RejectModelVersion: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                model: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RejectModelVersionBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RejectModelVersionResponse"];
                };
            };
        };
    };
    RegistryService_RevokeModelVersion: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                model: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RevokeModelVersionBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RevokeModelVersionResponse"];
                };
            };
        };
    };
    RegistryService_SubmitModelVersion: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                model: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SubmitModelVersionBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SubmitModelVersionResponse"];
                };
            };
        };
    };
    DriftService_ListMonitors: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListMonitorsResponse"];
                };
            };
        };
    };
    DriftService_PutMonitor: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PutMonitorBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PutMonitorResponse"];
                };
            };
        };
    };
    DriftService_RunMonitor: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RunMonitorBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunMonitorResponse"];
                };
            };
        };
    };
    AccessService_ListRules: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListRulesResponse"];
                };
            };
        };
    };
    AccessService_AddRule: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** @description AddRuleRequest carries the rule. */
        requestBody: {
            content: {
                "application/json": components["schemas"]["AddRuleRequest"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AddRuleResponse"];
                };
            };
        };
    };
    AccessService_RemoveRule: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** @description RemoveRuleRequest carries the rule. */
        requestBody: {
            content: {
                "application/json": components["schemas"]["RemoveRuleRequest"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RemoveRuleResponse"];
                };
            };
        };
    };
    AccessService_ExplainAccess: {
        parameters: {
            query?: {
                account?: string;
                resource?: string;
                action?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ExplainAccessResponse"];
                };
            };
        };
    };
    FeatureStoreService_ListServices: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListServicesResponse"];
                };
            };
        };
    };
    FeatureStoreService_GetService: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                service: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetServiceResponse"];
                };
            };
        };
    };
    FeatureStoreService_ReadOnline: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                service: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ReadOnlineBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReadOnlineResponse"];
                };
            };
        };
    };
    AccessService_CreateTenant: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** @description CreateTenantRequest names the tenant and its first administrator. */
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateTenantRequest"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CreateTenantResponse"];
                };
            };
        };
    };
    AccessService_ListTokens: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListTokensResponse"];
                };
            };
        };
    };
    AccessService_IssueToken: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** @description IssueTokenRequest names the account, the time to live and, optionally, the only actions the token may be used for. */
        requestBody: {
            content: {
                "application/json": components["schemas"]["IssueTokenRequest"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["IssueTokenResponse"];
                };
            };
        };
    };
    AccessService_RevokeToken: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                token_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RevokeTokenBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RevokeTokenResponse"];
                };
            };
        };
    };
    FeatureStoreService_ListTrainingSetBuilds: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListTrainingSetBuildsResponse"];
                };
            };
        };
    };
    FeatureStoreService_GetTrainingSetBuild: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                build_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetTrainingSetBuildResponse"];
                };
            };
        };
    };
    FeatureStoreService_CancelTrainingSetBuild: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                build_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CancelTrainingSetBuildBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CancelTrainingSetBuildResponse"];
                };
            };
        };
    };
    FeatureStoreService_ListTrainingSets: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListTrainingSetsResponse"];
                };
            };
        };
    };
    FeatureStoreService_GetTrainingSet: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                digest: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetTrainingSetResponse"];
                };
            };
        };
    };
    FeatureStoreService_AblateTrainingSet: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                digest: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["AblateTrainingSetBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AblateTrainingSetResponse"];
                };
            };
        };
    };
    FeatureStoreService_RebuildTrainingSet: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                digest: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RebuildTrainingSetBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RebuildTrainingSetResponse"];
                };
            };
        };
    };
    FeatureStoreService_ListViews: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListViewsResponse"];
                };
            };
        };
    };
    FeatureStoreService_GetView: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                view: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["GetViewResponse"];
                };
            };
        };
    };
    FeatureStoreService_ListQuarantine: {
        parameters: {
            query?: {
                page_size?: number;
                page_token?: string;
                /** @description of one batch only; "" for all */
                batch_id?: string;
            };
            header?: never;
            path: {
                view: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ListQuarantineResponse"];
                };
            };
        };
    };
    FeatureStoreService_ClearQuarantine: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                view: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ClearQuarantineBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ClearQuarantineResponse"];
                };
            };
        };
    };
    FeatureStoreService_PushRows: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                view: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PushRowsBody"];
            };
        };
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PushRowsResponse"];
                };
            };
        };
    };
    AccessService_WhoAmI: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A successful response. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["WhoAmIResponse"];
                };
            };
        };
    };
}
