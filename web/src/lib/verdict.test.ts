import { describe, expect, it } from "vitest";
import type { Decision } from "../api/types";
import { ageAt, instant, sentence, value } from "./format";
import blocked from "./testdata/blocked.json";
import fallback from "./testdata/fallback.json";
import model from "./testdata/model.json";
import { answeredBy, headline, kindOf, whyRules } from "./verdict";

const of = (recorded: { decision: object }) => recorded.decision as Decision;

describe("headline", () => {
  it("says who decided, or which gate let nothing be decided", () => {
    expect(headline(of(model))).toBe(
      "ORD-123 was decided as “WH-NY-1/CarrierX/NextDay” by the model late-risk@v1, approved by bob.",
    );
    expect(headline(of(fallback))).toBe(
      "ORD-NZ was decided as “WH-LA-1/CarrierY/Ground” by the rules route-rules@v1, approved by bob.",
    );
    expect(headline(of(blocked))).toBe("ORD-XX was blocked by the gate embargo: nothing is shipped to this country.");
  });

  it("takes a gate's verdict for blocked, not an action that happens to be called so", () => {
    expect(kindOf({ summary: { action: "blocked", model: "m@v1" }, gates: [{ gate: "g", verdict: "allow" }] })).toBe(
      "model",
    );
  });

  it("names the rules from the answer when the hub does not say who answered", () => {
    expect(answeredBy({ ...of(fallback), answered_by: "" })).toBe("route-rules@v1");
    expect(answeredBy(of(blocked))).toBe("");
  });
});

describe("whyRules", () => {
  it.each([
    ["model: late-risk@v1 is revoked", "late-risk@v1 is revoked"],
    ["features: not done within the deadline", "the features could not be read: not done within the deadline"],
    ["gate out-of-policy: too long", "gate out-of-policy asked for them: too long"],
    ["something else", "something else"],
    ["", "no reason was recorded"],
  ])("%s", (reason, words) => expect(whyRules(reason)).toBe(words));
});

describe("instant", () => {
  it("reads what people put into an address, and nothing else", () => {
    expect(instant("2026-04-10T18:00")).toBe("2026-04-10T18:00:00.000Z");
    expect(instant("2026-04-10T18:00:05Z")).toBe("2026-04-10T18:00:05.000Z");
    expect(instant("2026-04-10T18:00:00+02:00")).toBe("2026-04-10T16:00:00.000Z");
    expect(instant("2026-04-10")).toBe("2026-04-10T00:00:00.000Z");
    for (const bad of ["garbage", "7", "2026-99-99T00:00", "2026-04-10T99:00", "", null, undefined]) {
      expect(instant(bad)).toBeUndefined();
    }
  });
});

describe("words", () => {
  it("counts an age from the decision, not from today", () => {
    expect(ageAt("2013-11-25T10:00:00Z", "2026-11-25T10:00:00Z")).toBe("12 years before the decision");
    expect(ageAt("2026-11-25T10:00:00Z", "2026-11-25T10:00:05.5Z")).toBe("5 seconds before the decision");
    expect(ageAt("2026-11-25T10:00:00Z", "2026-11-25T09:00:00Z")).toBe("1 hour after the decision");
    expect(ageAt(undefined, "2026-11-25T09:00:00Z")).toBe("–");
  });

  it("makes a sentence of the hub's words", () => {
    expect(sentence("no rule lets shop read log")).toBe("No rule lets shop read log.");
    expect(sentence("Done.")).toBe("Done.");
  });

  it("reads a list of things aloud", () => {
    expect(value([{ qty: 1, sku: "SKU-1" }])).toBe("qty 1, sku SKU-1");
  });
});
