// C2SP signed-note and tlog-checkpoint: https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint.

import { concat, fromBase64, toHex, utf8 } from "./bytes";
import { type Engine, sha256, verifyEd25519 } from "./digest";

/** A verifier key: "<name>+<hash>+<base64 of type byte and public key>". */
export interface VerifierKey {
  name: string;
  /** SHA-256(name ‖ "\n" ‖ type ‖ public key), first 4 bytes, as hex. */
  keyHash: string;
  publicKey: Uint8Array;
}

/** One signature line: "— <name> <base64 of 4 bytes of key hash and the signature>". */
export interface SignatureLine {
  name: string;
  keyHash: string;
  signature: Uint8Array;
}

/** A note taken apart; the text ends with its newline and is what is signed. */
export interface Note {
  text: string;
  signatures: SignatureLine[];
}

/** The three lines every checkpoint has, and any extension lines. */
export interface Checkpoint {
  origin: string;
  size: number;
  root: Uint8Array;
  extensions: string[];
}

const ed25519 = 0x01;

/** Parses a verifier key and checks that its hash belongs to its name and key. Throws otherwise. */
export async function parseVerifierKey(text: string): Promise<VerifierKey> {
  const match = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)$/.exec(text.trim());
  if (!match) throw new Error("the verifier key is not of the form name+hash+key");
  const [, name = "", keyHash = "", encoded = ""] = match;
  const raw = fromBase64(encoded);
  if (raw.length !== 33 || raw[0] !== ed25519) throw new Error("the verifier key is not an Ed25519 key");
  const computed = toHex((await sha256(concat(utf8(`${name}\n`), raw))).subarray(0, 4));
  if (computed !== keyHash) throw new Error(`the key hash is ${computed}, the verifier key says ${keyHash}`);
  return { name, keyHash, publicKey: raw.subarray(1) };
}

/** Parses a signed note. Throws when it is not one. */
export function parseNote(note: string): Note {
  const split = note.lastIndexOf("\n\n");
  if (split < 0 || !note.endsWith("\n")) throw new Error("the checkpoint is not a signed note");
  const text = note.slice(0, split + 1);
  const lines = note.slice(split + 2, -1).split("\n");
  const signatures = lines.map((line) => {
    const match = /^— (\S+) (\S+)$/.exec(line);
    if (!match) throw new Error("a signature line of the checkpoint is malformed");
    const raw = fromBase64(match[2] ?? "");
    if (raw.length < 5) throw new Error("a signature of the checkpoint is too short");
    return { name: match[1] ?? "", keyHash: toHex(raw.subarray(0, 4)), signature: raw.subarray(4) };
  });
  return { text, signatures };
}

/** Parses the text of a checkpoint. Throws when it is not one. */
export function parseCheckpoint(text: string): Checkpoint {
  const [origin = "", size = "", root = "", ...extensions] = text.slice(0, -1).split("\n");
  if (origin === "") throw new Error("the checkpoint names no origin");
  if (!/^(0|[1-9][0-9]*)$/.test(size) || !Number.isSafeInteger(Number(size))) {
    throw new Error("the second line of the checkpoint is not a tree size");
  }
  const hash = fromBase64(root);
  if (hash.length !== 32) throw new Error("the root of the checkpoint is not a SHA-256 hash");
  return { origin, size: Number(size), root: hash, extensions };
}

/** Whether the note carries a valid signature of the key. A line with our name and hash that fails is a failure. */
export async function verifyNote(note: Note, key: VerifierKey): Promise<{ ok: boolean; engine?: Engine }> {
  const ours = note.signatures.filter((s) => s.name === key.name && s.keyHash === key.keyHash);
  if (ours.length === 0) return { ok: false };
  let engine: Engine | undefined;
  for (const line of ours) {
    const result = await verifyEd25519(key.publicKey, line.signature, utf8(note.text));
    engine = result.engine;
    if (!result.ok) return { ok: false, engine };
  }
  return engine ? { ok: true, engine } : { ok: false };
}
