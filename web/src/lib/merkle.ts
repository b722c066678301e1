// RFC 6962 section 2.1: the hashes of a transparency log, and the check of an inclusion proof.

import { concat } from "./bytes";
import { sha256 } from "./digest";

/** SHA-256(0x00 ‖ leaf). */
export function leafHash(leaf: Uint8Array): Promise<Uint8Array> {
  return sha256(concat(Uint8Array.of(0), leaf));
}

/** SHA-256(0x01 ‖ left ‖ right). */
export function nodeHash(left: Uint8Array, right: Uint8Array): Promise<Uint8Array> {
  return sha256(concat(Uint8Array.of(1), left, right));
}

/**
 * The root that `path` (sibling hashes, leaf upwards) leads to from `leaf` at `index` in a tree of `size` leaves:
 * RFC 9162 section 2.1.3.2. Throws when index, size and the length of the path do not go together, so that no root
 * comes out of a proof of another shape. Sizes up to 2^53 are exact.
 */
export async function rootFromPath(
  index: number,
  size: number,
  leaf: Uint8Array,
  path: readonly Uint8Array[],
): Promise<Uint8Array> {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(size) || index < 0 || index >= size) {
    throw new Error(`index ${index} does not lie in a tree of ${size} leaves`);
  }
  for (const sibling of path) {
    if (sibling.length !== 32) throw new Error(`a sibling hash has ${sibling.length} bytes, not 32`);
  }
  let at = index;
  let last = size - 1;
  let hash = leaf;
  for (const sibling of path) {
    if (last === 0) throw new Error(`the path has ${path.length} hashes, too many for this index and size`);
    // Bit operations of JavaScript are 32 bits wide; division keeps sizes above 2^31 exact.
    if (at % 2 === 1 || at === last) {
      hash = await nodeHash(sibling, hash);
      while (at % 2 === 0 && at !== 0) {
        at /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      hash = await nodeHash(hash, sibling);
    }
    at = Math.floor(at / 2);
    last = Math.floor(last / 2);
  }
  if (last !== 0) throw new Error(`the path has ${path.length} hashes, too few for this index and size`);
  return hash;
}
