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
