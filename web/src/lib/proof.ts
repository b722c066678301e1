// The proof of one decision, checked step by step in this browser with nothing taken on the hub's word but the key.

import type { Decision } from "../api/types";
import { equal, fromBase64, toBase64, toHex, utf8 } from "./bytes";
import { sha256 } from "./digest";
import { leafHash, rootFromPath } from "./merkle";
import { parseCheckpoint, parseNote, parseVerifierKey, verifyNote } from "./note";
import { differences, type Leaf, type Payload } from "./shown";

/** What GET /v1/decisions/{id}/proof answers; int64 fields are strings in JSON. */
export interface ProofInput {
  index?: string | number;
  leaf?: string;
  leaf_hash?: string;
  path?: readonly string[];
  size?: string | number;
  root?: string;
  checkpoint?: string;
  verifier_key?: string;
  /** The exact bytes of the record whose digest the leaf names. */
  payload?: string;
}

/** One step of the check: what was done, whether it held, and what was seen. */
export interface ProofStep {
  id: "leaf-names-decision" | "leaf-hash" | "path" | "checkpoint" | "key" | "signature" | "record" | "shown";
  title: string;
  /** undefined: not reached, because an earlier step failed. */
  ok: boolean | undefined;
  detail: string;
}

export interface ProofResult {
  ok: boolean;
  steps: ProofStep[];
  /** The verifier key, once it proved well-formed: the one thing to compare with a copy from elsewhere. */
  key?: string;
  /** The log's entry, once it proved to be about this decision. */
  leaf?: Leaf;
}

class Mismatch extends Error {}

/**
 * Checks, in order: the leaf is about this decision; its RFC 6962 hash; the Merkle path; the path's root is the one in
 * the checkpoint; the key is well-formed; the key signed the checkpoint; the record is the one that the leaf names; and
 * `shown`, the decision as the page draws it, is what leaf and record say. Never throws: a malformed proof is a step
 * that did not hold, with the reason in words.
 */
export async function verifyProof(proof: ProofInput, decisionId: string, shown: Decision): Promise<ProofResult> {
  const steps: ProofStep[] = [];
  let broken = false;
  const step = async (id: ProofStep["id"], title: string, check: () => Promise<string> | string) => {
    if (broken) {
      steps.push({ id, title, ok: undefined, detail: "Not checked, because an earlier step failed." });
      return;
    }
    try {
      steps.push({ id, title, ok: true, detail: await check() });
    } catch (cause) {
      broken = true;
      const reason = cause instanceof Error ? cause.message : String(cause);
      steps.push({ id, title, ok: false, detail: `${reason.charAt(0).toUpperCase()}${reason.slice(1)}.` });
    }
  };
  const index = Number(proof.index ?? 0);
  const size = Number(proof.size ?? 0);
  let hash: Uint8Array = new Uint8Array();
  let root: Uint8Array = new Uint8Array();
  let key: string | undefined;
  let leaf: Leaf | undefined;

  await step("leaf-names-decision", "The log entry is about this decision", () => {
    const parsed = jsonObject(proof.leaf ?? "", "the entry") as Leaf;
    if (parsed.t !== "decision") throw new Mismatch("the entry is not that of a decision");
    if (parsed.id !== decisionId) throw new Mismatch("the entry does not name this decision");
    leaf = parsed;
    return `Entry ${index} names decision ${decisionId}.`;
  });
  await step("leaf-hash", "The entry hashes to its leaf", async () => {
    hash = await leafHash(utf8(proof.leaf ?? ""));
    const claimed = fromBase64(proof.leaf_hash ?? "");
    if (!equal(hash, claimed))
      throw new Mismatch(`the entry hashes to ${toBase64(hash)}, the proof says ${proof.leaf_hash}`);
    return `SHA-256(0x00 ‖ entry) = ${toBase64(hash)}`;
  });
  await step("path", "The leaf is in the tree", async () => {
    const path = (proof.path ?? []).map(fromBase64);
    root = await rootFromPath(index, size, hash, path);
    return `${path.length} sibling hashes lead from leaf ${index} of ${size} to the root ${toBase64(root)}`;
  });
  await step("checkpoint", "The tree is the one in the checkpoint", () => {
    const checkpoint = parseCheckpoint(parseNote(proof.checkpoint ?? "").text);
    if (checkpoint.size !== size)
      throw new Mismatch(`the checkpoint is of size ${checkpoint.size}, the proof of size ${size}`);
    if (!equal(checkpoint.root, root)) {
      throw new Mismatch(`the checkpoint has root ${toBase64(checkpoint.root)}, the path leads to ${toBase64(root)}`);
    }
    return `${checkpoint.origin}, size ${size}, same root`;
  });
  await step("key", "The key is whole", async () => {
    const parsed = await parseVerifierKey(proof.verifier_key ?? "");
    key = proof.verifier_key;
    return `Ed25519 key of ${parsed.name}, key hash ${parsed.keyHash}`;
  });
  await step("signature", "The checkpoint is signed by that key", async () => {
    const parsed = await parseVerifierKey(proof.verifier_key ?? "");
    const result = await verifyNote(parseNote(proof.checkpoint ?? ""), parsed);
    if (!result.engine) throw new Mismatch(`the checkpoint carries no signature of ${parsed.name}`);
    if (!result.ok) throw new Mismatch("the signature does not belong to this checkpoint");
    return `Ed25519 signature valid, computed with ${result.engine}.`;
  });
  await step("record", "The record hashes to what the entry names", async () => {
    if (!proof.payload) throw new Mismatch("the hub sent no record, so nothing shows what went into the decision");
    const digest = `sha256:${toHex(await sha256(utf8(proof.payload)))}`;
    if (digest !== leaf?.payload) {
      throw new Mismatch(`the record hashes to ${digest}, the entry names ${leaf?.payload || "none"}`);
    }
    return `SHA-256(record) = ${digest}`;
  });
  await step("shown", "What this page shows is the entry and the record", () => {
    const payload = jsonObject(proof.payload ?? "", "the record") as Payload;
    const found = differences(shown, leaf ?? {}, payload);
    if (Number(shown.summary?.index ?? 0) !== index) found.push("number of the log entry");
    if (found.length > 0) throw new Mismatch(`the page shows something else than was logged: ${found.join(", ")}`);
    return "Compared: action, score, order and request, answer, endpoint, model or rules, every input and contribution, candidates, gates, fallback, time.";
  });
  return { ok: !broken, steps, ...(key === undefined ? {} : { key }), ...(leaf === undefined ? {} : { leaf }) };
}

/** Reads a JSON object; anything else throws with `what` in the reason. */
function jsonObject(text: string, what: string): object {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new Mismatch(`${what} is not JSON`);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new Mismatch(`${what} is not a JSON object`);
  }
  return parsed;
}
