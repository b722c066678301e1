// What a decision came to, in words that are put together here from facts that the proof covers, not taken from a
// sentence of the hub: only who approved is not in the log's entry.

import type { Decision } from "../api/types";
import { stop } from "./format";
import { blockedAction } from "./shown";

/** Who decided: a model, the endpoint's rules in its place, or nobody because a gate blocked. */
export type Kind = "model" | "rules" | "blocked";

export function kindOf(d: Decision): Kind {
  if (d.summary?.action === blockedAction && blockingGate(d)) return "blocked";
  return d.fallback_reason || d.summary?.fallback ? "rules" : "model";
}

/** The gate that blocked, if one did. */
export function blockingGate(d: Decision) {
  return (d.gates ?? []).find((g) => g.verdict === "block");
}

/** "late-risk@v1": the model or the rule set that answered; "" when nobody did. */
export function answeredBy(d: Decision): string {
  if (kindOf(d) === "blocked") return "";
  const fallback = d.answer?.fallback as { by?: string } | undefined;
  return d.answered_by || d.summary?.model || fallback?.by || "";
}

/** Why the model did not answer, as the end of a sentence: "late-risk@v1 is revoked". */
export function whyRules(reason: string | undefined): string {
  const match = /^(model|features|gate ([^:]+)): (.*)$/s.exec(reason ?? "");
  if (!match) return reason || "no reason was recorded";
  const [, what, gate, rest = ""] = match;
  if (gate) return `gate ${gate} asked for them: ${rest}`;
  return what === "features" ? `the features could not be read: ${rest}` : rest;
}

/** The heading of a waybill, in the words of the hub's own sentence. */
export function headline(d: Decision): string {
  const what = d.summary?.business_key || "The request";
  const kind = kindOf(d);
  if (kind === "blocked") {
    const gate = blockingGate(d);
    return `${what} was blocked by the gate ${gate?.gate}${gate?.reason ? `: ${stop(gate.reason)}` : "."}`;
  }
  const by = [kind === "rules" ? "the rules" : "the model", answeredBy(d)].filter(Boolean).join(" ");
  const approved = d.approver ? `, approved by ${d.approver}` : "";
  return `${what} was decided as “${d.summary?.action}” by ${by}${approved}.`;
}
