// Short names for the generated types of the REST API.

import type { operations } from "./schema";

type Answer<O extends keyof operations> = operations[O] extends {
  responses: { 200: { content: { "application/json": infer A } } };
}
  ? A
  : never;

export type WhoAmI = Answer<"AccessService_WhoAmI">;
export type Decision = NonNullable<Answer<"DecisionService_GetDecision">["decision"]>;
export type DecisionSummary = NonNullable<Decision["summary"]>;
export type Input = NonNullable<Decision["inputs"]>[number];
export type Candidate = NonNullable<Decision["candidates"]>[number];
export type Search = NonNullable<operations["DecisionService_SearchDecisions"]["parameters"]["query"]>;
export type Bucket = NonNullable<Answer<"DecisionService_GetActivity">["buckets"]>[number];
export type Graph = Answer<"LineageService_GetLineage">;
export type GraphNode = NonNullable<Graph["nodes"]>[number];
export type Replay = Answer<"DecisionService_ReplayDecision">;
export type Verification = Answer<"AuditService_VerifyLog">;
