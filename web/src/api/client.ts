// One typed client of the REST API, with the visitor's token, and errors in words.

import createClient from "openapi-fetch";
import type { paths } from "./schema";

const storageKey = "waybill-token";

/** The token of this tab; closing the tab forgets it. */
export const token = {
  get: () => sessionStorage.getItem(storageKey) ?? "",
  set: (value: string) => sessionStorage.setItem(storageKey, value),
  clear: () => sessionStorage.removeItem(storageKey),
};

/** What the hub said when it refused: an RFC 9457 problem. Status 0: the hub could not be reached. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export const api = createClient<paths>({ baseUrl: "/" });

api.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${token.get()}`);
    return request;
  },
});

let onUnauthorized: ((reason: string) => void) | undefined;

/** Names who is told when the hub no longer knows the token, with the hub's reason. One listener: the session. */
export function whenUnauthorized(listener: ((reason: string) => void) | undefined): void {
  onUnauthorized = listener;
}

api.use({
  async onResponse({ request, response }) {
    if (response.status !== 401) return;
    const { detail } = (await response
      .clone()
      .json()
      .catch(() => ({}))) as { detail?: string };
    // An answer to a token that was given up meanwhile says nothing about the one in use; of several the first counts.
    if (token.get() === "" || request.headers.get("Authorization") !== `Bearer ${token.get()}`) return;
    onUnauthorized?.(detail ?? "the hub does not know this token (any more)");
  },
});

interface Outcome<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** Waits for a call and returns its data; throws a Problem otherwise. */
export async function data<T>(call: Promise<Outcome<T>>): Promise<T> {
  let outcome: Outcome<T>;
  try {
    outcome = await call;
  } catch {
    throw new Problem(0, "The hub does not answer. It may be restarting; the page tries again.");
  }
  if (outcome.data !== undefined) return outcome.data;
  const { detail } = (outcome.error ?? {}) as { detail?: string };
  throw new Problem(outcome.response.status, detail ?? `The hub answered ${outcome.response.status}.`);
}

/** Worth another try: the hub was away or said that it is busy. A refusal stays a refusal. */
export function retryable(cause: unknown): boolean {
  return cause instanceof Problem && (cause.status === 0 || cause.status === 429 || cause.status >= 500);
}
