import { describe, expect, it } from "vitest";
import { type ProofInput, verifyProof } from "./proof";
import recorded from "./testdata/proof.json";

// A proof that a real hub gave for a decision of its demo.
const proof = recorded as ProofInput & { leaf: string; path: string[]; checkpoint: string; verifier_key: string };
const id = (JSON.parse(proof.leaf) as { id: string }).id;

/** The first step that does not hold. */
async function failing(changed: Partial<ProofInput>, decision = id): Promise<string | undefined> {
  const result = await verifyProof({ ...proof, ...changed }, decision);
  expect(result.ok).toBe(false);
  return result.steps.find((s) => s.ok === false)?.id;
}

const flip = (base64: string) => (base64.startsWith("A") ? "B" : "A") + base64.slice(1);

describe("verifyProof", () => {
  it("holds for a proof of a real hub", async () => {
    const result = await verifyProof(proof, id);
    expect(result.steps.filter((s) => s.ok !== true)).toEqual([]);
    expect(result.ok).toBe(true);
    expect(result.key).toBe(proof.verifier_key);
  });

  it("names the step that fails", async () => {
    expect(await failing({}, "01a20d44-0000-7000-8000-000000000000")).toBe("leaf-names-decision");
    expect(await failing({ leaf: proof.leaf.replace("WH-NY-1", "WH-LA-1") })).toBe("leaf-hash");
    expect(await failing({ leaf: "not json" })).toBe("leaf-names-decision");
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
