// SHA-256 and Ed25519 with the browser's WebCrypto. A browser gives WebCrypto to https and localhost only, and older
// ones lack Ed25519; then a small audited library does the same work, fetched only when it is needed.

import { concat } from "./bytes";

/** SHA-256 of data. */
export async function sha256(data: Uint8Array): Promise<Uint8Array> {
  const subtle = globalThis.crypto?.subtle;
  if (subtle) return new Uint8Array(await subtle.digest("SHA-256", concat(data)));
  return (await import("./fallback")).sha256(data);
}

/** Says which code checked a signature. */
export type Engine = "WebCrypto" | "noble-ed25519";

/** Whether signature is publicKey's Ed25519 signature of message, and who computed it. */
export async function verifyEd25519(
  publicKey: Uint8Array,
  signature: Uint8Array,
  message: Uint8Array,
): Promise<{ ok: boolean; engine: Engine }> {
  const subtle = globalThis.crypto?.subtle;
  if (subtle) {
    let key: CryptoKey | undefined;
    try {
      key = await subtle.importKey("raw", concat(publicKey), { name: "Ed25519" }, false, ["verify"]);
    } catch (cause) {
      // NotSupportedError: no Ed25519 here, use the library. Any other error: the key itself is bad.
      if (!(cause instanceof DOMException) || cause.name !== "NotSupportedError")
        return { ok: false, engine: "WebCrypto" };
    }
    if (key) {
      const ok = await subtle.verify({ name: "Ed25519" }, key, concat(signature), concat(message));
      return { ok, engine: "WebCrypto" };
    }
  }
  return { ok: await (await import("./fallback")).verify(publicKey, signature, message), engine: "noble-ed25519" };
}
