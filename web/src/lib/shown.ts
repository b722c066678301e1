// Whether a page shows what the log holds: the decision as the hub answered it, held against the log's entry (the
// leaf) and the record that the entry names by its digest (the payload). Pure, so that it can be tested without a page.

import type { Decision } from "../api/types";

/** A decision's entry in the log, as far as a page shows it (audit.DecisionLeaf). */
export interface Leaf {
  t?: string;
  id?: string;
  decided_at?: string;
  actor?: string;
  endpoint?: string;
  model?: { ref?: string; digest?: string; approval?: string } | null;
  policy_rev?: number;
  service?: string;
  payload?: string;
  action?: string;
  score?: number | null;
  gates?: string[] | null;
  fallback?: string;
}

/** The record that lies beside the log (decision.Record). */
export interface Payload {
  request?: Record<string, unknown> | null;
  answer?: Record<string, unknown> | null;
  inputs?: RecordedInput[] | null;
  names?: string[] | null;
  phi?: number[] | null;
  base?: number;
  raw?: number;
  candidates?: { action?: string; score?: number; cost?: number; eligible?: boolean }[] | null;
  gates?: { gate?: string; stage?: string; verdict?: string; reason?: string }[] | null;
  latency_us?: number;
}

interface RecordedInput {
  name?: string;
  value?: unknown;
  status?: string;
  view?: string;
  seq?: number;
  event?: string;
  sources?: string[] | null;
}

/** What an entry gives as its action when a gate let nothing be decided. */
export const blockedAction = "blocked";

/**
 * Names every part of the shown decision that differs from the entry or the record; none: the page shows what the
 * log holds. What neither of them carries cannot be compared and is listed in `uncovered`.
 */
export function differences(d: Decision, leaf: Leaf, payload: Payload): string[] {
  const found: string[] = [];
  const same = (part: string, shown: unknown, logged: unknown) => {
    if (!equal(shown, logged)) found.push(part);
  };
  const s = d.summary ?? {};
  const fallback = leaf.fallback ?? "";
  const ref = leaf.model?.ref ?? "";

  same("decision id", s.decision_id, leaf.id);
  same("time of the decision", instant(s.decided_at), instant(leaf.decided_at));
  same("who asked", d.actor ?? "", leaf.actor ?? "");
  same("endpoint", `${s.endpoint}@v${s.revision}`, leaf.endpoint);
  same("action", s.action ?? "", leaf.action ?? "");
  // JSON of the API cannot tell "no score" from 0; the page shows none where the entry has none.
  same("score", s.score ?? 0, leaf.score ?? 0);
  same("fallback", s.fallback ?? "", fallback);
  same("fallback", d.fallback_reason ?? "", fallback);
  same("model", s.model ?? "", fallback === "" ? ref : "");
  if (d.answered_by) same("who answered", d.answered_by, ref);
  same("model digest", d.model_digest ?? "", leaf.model?.digest ?? "");
  same("policy revision", Number(d.policy_rev ?? 0), leaf.policy_rev ?? 0);
  same("feature service", d.feature_service ?? "", leaf.service ?? "");
  same("gates", [...(s.gates ?? [])].sort(), [...(leaf.gates ?? [])].sort());

  same("request", d.request ?? {}, payload.request ?? {});
  same("answer", d.answer ?? {}, payload.answer ?? {});
  // Which field of the request is the business key only the endpoint's definition says; one of them must be it.
  const key = s.business_key ?? "";
  if (key !== "" && !Object.values(payload.request ?? {}).includes(key)) found.push("business key");
  same(
    "gates",
    (d.gates ?? []).map((g) => [g.gate, g.stage, g.verdict, g.reason ?? ""]),
    (payload.gates ?? []).map((g) => [g.gate, g.stage, g.verdict, g.reason ?? ""]),
  );
  same(
    "candidates",
    (d.candidates ?? []).map((c) => [c.action, c.score ?? 0, c.cost ?? 0, c.eligible ?? false]),
    (payload.candidates ?? []).map((c) => [c.action, c.score ?? 0, c.cost ?? 0, c.eligible ?? false]),
  );
  same("start of the raw score", d.base ?? 0, payload.base ?? 0);
  same("raw score", d.raw ?? 0, payload.raw ?? 0);
  same("time taken", Math.round(1000 * (d.latency_ms ?? 0)), payload.latency_us ?? 0);

  const logged = payload.inputs ?? [];
  const shown = d.inputs ?? [];
  if (shown.length !== logged.length) found.push("number of inputs");
  const moved = new Map((payload.names ?? []).map((name, i) => [name, payload.phi?.[i] ?? 0]));
  for (const [i, input] of shown.entries()) {
    const from = logged[i];
    if (!from) break;
    const row = [input.name, input.value ?? null, input.status, input.view ?? "", Number(input.sequence ?? 0)];
    same(`input ${input.name}`, row, [from.name, from.value ?? null, from.status, from.view ?? "", from.seq ?? 0]);
    same(`event time of ${input.name}`, instant(input.event_time), instant(from.event));
    same(`contribution of ${input.name}`, input.contribution ?? 0, moved.get(from.name ?? "") ?? 0);
    same(`sources of ${input.name}`, input.sources ?? [], from.sources ?? []);
  }
  return [...new Set(found)];
}

/** What a decision page shows that is in neither the entry nor the record, in words. */
export function uncovered(leaf: Leaf): string {
  const approval = leaf.model?.approval;
  return (
    "Not covered by this proof: who gave the approval, when and why" +
    (approval ? ` (the entry names only its id, ${approval})` : "") +
    "; the training set; what happened later (state of the model now, outcomes); " +
    "and the way it came, which is read from the lineage."
  );
}

/** RFC 3339 with the fraction's trailing zeros taken away, so that micro- and nanoseconds compare exactly. */
function instant(iso: string | undefined): string {
  const match = /^(.*?)(?:\.(\d+?)0*)?Z$/.exec(iso ?? "");
  if (!match) return iso ?? "";
  const fraction = (match[2] ?? "").replace(/0+$/, "");
  return fraction ? `${match[1]}.${fraction}Z` : `${match[1]}Z`;
}

/** Whether two JSON values are the same; the order of an object's fields does not matter, that of a list does. */
export function equal(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) {
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((x, i) => equal(x, b[i]));
  }
  const [left, right] = [a as Record<string, unknown>, b as Record<string, unknown>];
  const keys = Object.keys(left);
  return (
    keys.length === Object.keys(right).length && keys.every((k) => Object.hasOwn(right, k) && equal(left[k], right[k]))
  );
}
