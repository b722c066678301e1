// The same two functions as digest.ts without WebCrypto.

import * as ed from "@noble/ed25519";
import { sha256 as nobleSHA256, sha512 } from "@noble/hashes/sha2";

ed.etc.sha512Sync = (...messages) => sha512(ed.etc.concatBytes(...messages));

/** SHA-256 of data. */
export function sha256(data: Uint8Array): Uint8Array {
  return nobleSHA256(data);
}

/** Whether signature is publicKey's Ed25519 signature of message; malformed input is a plain no. */
export function verify(publicKey: Uint8Array, signature: Uint8Array, message: Uint8Array): boolean {
  try {
    return ed.verify(signature, message, publicKey, { zip215: false });
  } catch {
    return false;
  }
}
