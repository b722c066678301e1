import { describe, expect, it } from "vitest";
import type { Decision } from "../api/types";
import { type ProofInput, verifyProof } from "./proof";
import { differences } from "./shown";
import blocked from "./testdata/blocked.json";
import fallback from "./testdata/fallback.json";
import model from "./testdata/model.json";

// Decisions of a real hub's demo with their proofs: of the model, of the rules in its place, and one that a gate blocked.
const recorded = { model, fallback, blocked };
const proof = model.proof;
const shown = model.decision as unknown as Decision;
const id = shown.summary?.decision_id ?? "";

/** The first step that does not hold. */
async function failing(changed: Partial<ProofInput>, decision = id, page = shown): Promise<string | undefined> {
  const result = await verifyProof({ ...proof, ...changed }, decision, page);
  expect(result.ok).toBe(false);
  return result.steps.find((s) => s.ok === false)?.id;
}

/** The recorded decision with something else in its place, as a hub would show it that somebody tampered with. */
function tampered(from: object, change: (d: Required<Decision>) => void): Decision {
  const copy = structuredClone(from) as Required<Decision>;
  change(copy);
  return copy;
}

const flip = (base64: string) => (base64.startsWith("A") ? "B" : "A") + base64.slice(1);

describe("verifyProof", () => {
  it.each(Object.keys(recorded) as (keyof typeof recorded)[])("holds for a proof of a real hub: %s", async (name) => {
    const { proof, decision } = recorded[name];
    const result = await verifyProof(proof, decision.summary.decision_id, decision as unknown as Decision);
    expect(result.steps.filter((s) => s.ok !== true)).toEqual([]);
    expect(result.ok).toBe(true);
    expect(result.key).toBe(proof.verifier_key);
  });

  it("names the step that fails", async () => {
    expect(await failing({}, "01a20d44-0000-7000-8000-000000000000")).toBe("leaf-names-decision");
    expect(await failing({ leaf: proof.leaf.replace("WH-NY-1", "WH-LA-1") })).toBe("leaf-hash");
    expect(await failing({ leaf: "not json" })).toBe("leaf-names-decision");
    expect(await failing({ leaf: "[]" })).toBe("leaf-names-decision");
    // The id somewhere in an entry is not enough: it must be a decision's, and in its place.
    expect(await failing({ leaf: JSON.stringify({ t: "approval", id }) })).toBe("leaf-names-decision");
    expect(await failing({ leaf: JSON.stringify({ t: "decision", id: "other", subject: id }) })).toBe(
      "leaf-names-decision",
    );
    expect(await failing({ index: Number(proof.index) + 1 })).toBe("checkpoint");
    expect(await failing({ size: Number(proof.size) * 1024 })).toBe("path");
    expect(await failing({ index: proof.size ?? 0 })).toBe("path");
    expect(await failing({ path: proof.path.slice(1) })).toBe("path");
    expect(await failing({ path: [...proof.path, proof.path[0] ?? ""] })).toBe("path");
    expect(await failing({ path: ["", ...proof.path.slice(1)] })).toBe("path");
    expect(await failing({ checkpoint: proof.checkpoint.replace(/\n[0-9]+\n/, "\n7\n") })).toBe("checkpoint");
    expect(await failing({ checkpoint: "" })).toBe("checkpoint");
    expect(await failing({ verifier_key: "nobody" })).toBe("key");
    const signed = proof.checkpoint.replace(/(— \S+ )(\S+)\n$/, (_, head: string, sig: string) => {
      const at = sig.length - 20;
      return `${head}${sig.slice(0, at)}${flip(sig.slice(at))}\n`;
    });
    expect(signed).not.toBe(proof.checkpoint);
    expect(await failing({ checkpoint: signed })).toBe("signature");
  });

  it("fails, and throws nothing, for every single changed sibling", async () => {
    for (const [i, sibling] of proof.path.entries()) {
      const path = [...proof.path];
      path[i] = flip(sibling);
      expect(await failing({ path })).toBe("checkpoint");
    }
  });
});

describe("the record", () => {
  it("must be the one whose digest the entry names", async () => {
    expect(await failing({ payload: proof.payload.replace("SKU-1", "SKU-2") })).toBe("record");
    expect(await failing({ payload: `${proof.payload} ` })).toBe("record");
    expect(await failing({ payload: "" })).toBe("record");
    expect(await failing({ payload: fallback.proof.payload })).toBe("record");
  });
});

describe("what the page shows", () => {
  const changes: [string, (d: Required<Decision>) => void][] = [
    ["action", (d) => (d.summary.action = "WH-LA-1/CarrierY/Ground")],
    ["score", (d) => (d.summary.score = 0.9)],
    ["model", (d) => (d.summary.model = "late-risk@v2")],
    ["who answered", (d) => (d.answered_by = "late-risk@v2")],
    ["model digest", (d) => (d.model_digest = "sha256:00")],
    ["endpoint", (d) => (d.summary.revision = 7)],
    ["business key", (d) => (d.summary.business_key = "ORD-124")],
    ["fallback", (d) => (d.summary.fallback = "model: revoked")],
    ["fallback", (d) => (d.fallback_reason = "model: revoked")],
    ["time of the decision", (d) => (d.summary.decided_at = "2026-11-25T10:55:24.064015Z")],
    ["who asked", (d) => (d.actor = "eve")],
    ["policy revision", (d) => (d.policy_rev = "18")],
    ["feature service", (d) => (d.feature_service = "route-risk@v2")],
    ["request", (d) => Object.assign(d.request, { order_id: "ORD-124" })],
    ["request", (d) => delete d.request.deadline],
    ["request", (d) => Object.assign(d.request, { items: [] })],
    ["answer", (d) => Object.assign(d.answer, { warehouse: "WH-LA-1" })],
    ["gates", (d) => (d.gates = d.gates.slice(1))],
    ["gates", (d) => Object.assign(d.gates[0] ?? {}, { verdict: "block" })],
    ["candidates", (d) => Object.assign(d.candidates[3] ?? {}, { cost: 1 })],
    ["candidates", (d) => d.candidates.pop()],
    ["start of the raw score", (d) => (d.base = 0)],
    ["raw score", (d) => (d.raw = 3)],
    ["time taken", (d) => (d.latency_ms = 900)],
    ["number of inputs", (d) => d.inputs.pop()],
    ["input warehouse_queue", (d) => Object.assign(d.inputs[0] ?? {}, { value: 3 })],
    ["input warehouse_queue", (d) => Object.assign(d.inputs[0] ?? {}, { status: "NOT_FOUND" })],
    ["input warehouse_queue", (d) => Object.assign(d.inputs[0] ?? {}, { view: "warehouse_load@v9" })],
    ["input warehouse_queue", (d) => Object.assign(d.inputs[0] ?? {}, { sequence: "2" })],
    ["event time of warehouse_queue", (d) => Object.assign(d.inputs[0] ?? {}, { event_time: "2020-01-01T00:00:00Z" })],
    ["contribution of warehouse_queue", (d) => Object.assign(d.inputs[0] ?? {}, { contribution: 2 })],
  ];

  it.each(changes)("is found out when it has another %s (%#)", async (part, change) => {
    const page = tampered(model.decision, change);
    expect(await failing({}, id, page)).toBe("shown");
    expect(differences(page, JSON.parse(proof.leaf), JSON.parse(proof.payload))).toEqual([part]);
  });

  it("is found out when it has another number of the log entry", async () => {
    const page = tampered(model.decision, (d) => (d.summary.index = "1"));
    const result = await verifyProof(proof, id, page);
    expect(result.steps.at(-1)?.detail).toContain("number of the log entry");
  });

  it("is found out when a blocked decision is shown as decided, or a fallback as the model's", () => {
    const differ = (from: typeof blocked | typeof fallback, change: (d: Required<Decision>) => void) =>
      differences(tampered(from.decision, change), JSON.parse(from.proof.leaf), JSON.parse(from.proof.payload));
    expect(differ(blocked, (d) => (d.summary.action = "WH-NY-1"))).toEqual(["action"]);
    expect(differ(blocked, (d) => (d.summary.score = 0.5))).toEqual(["score"]);
    expect(differ(blocked, (d) => (d.answered_by = "late-risk@v1"))).toEqual(["who answered"]);
    expect(differ(fallback, (d) => (d.summary.model = "late-risk@v1"))).toEqual(["model"]);
    expect(differ(fallback, (d) => (d.answered_by = "other-rules@v1"))).toEqual(["who answered"]);
  });

  it("may be an answer of the model that a gate held back", () => {
    const gates = [{ gate: "high-value", stage: "after", verdict: "block", reason: "ask a person" }];
    const page = tampered(model.decision, (d) => {
      Object.assign(d.summary, { action: "blocked", score: 0, gates: ["high-value"] });
      d.gates = gates;
    });
    const leaf = { ...JSON.parse(proof.leaf), action: "blocked", score: null, gates: ["high-value"] };
    const payload = { ...JSON.parse(proof.payload), gates };
    expect(differences(page, leaf, payload)).toEqual([]);
    expect(
      differences(
        tampered(page, (d) => (d.answered_by = "")),
        leaf,
        payload,
      ),
    ).toEqual([]);
  });

  it("may write times and order fields differently", () => {
    const page = tampered(model.decision, (d) => {
      d.summary.decided_at = d.summary.decided_at?.replace("Z", "000Z");
      d.request = Object.fromEntries(Object.entries(d.request).reverse());
    });
    expect(differences(page, JSON.parse(proof.leaf), JSON.parse(proof.payload))).toEqual([]);
  });
});
