// Words and numbers of the pages. Every number gets its unit here or at the call.

const thousands = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

/** A count of things with thousands separators, e.g. "12,345". int64 values arrive as strings. */
export function count(n: number | string | undefined): string {
  const value = Number(n ?? 0);
  return Number.isFinite(value) ? thousands.format(value) : String(n);
}

/** A real number with about `digits` significant digits and no exponent between 1e-4 and 1e15. */
export function real(x: number | string | undefined, digits = 4): string {
  const v = Number(x ?? 0);
  if (!Number.isFinite(v)) return String(x);
  if (v === 0) return "0";
  const abs = Math.abs(v);
  if (abs < 1e-4 || abs >= 1e15) return v.toExponential(2).replace("-", "−");
  const places = Math.max(0, Math.min(8, digits - 1 - Math.floor(Math.log10(abs))));
  return v.toLocaleString("en-GB", { maximumFractionDigits: places }).replace("-", "−");
}

/** A real number with its sign always shown: "+0.42", "−1.1", "0". */
export function signed(x: number | undefined, digits = 3): string {
  const v = x ?? 0;
  return v > 0 ? `+${real(v, digits)}` : real(v, digits);
}

/** A share as a percentage with its unit; `total` 0 has no share. */
export function percent(part: number, total: number): string {
  return total > 0 ? `${((100 * part) / total).toFixed(part === 0 || part === total ? 0 : 1)} %` : "–";
}

/** "1 decision", "2,000 decisions". */
export function plural(n: number | string | undefined, one: string, many = `${one}s`): string {
  return `${count(n)} ${Number(n ?? 0) === 1 ? one : many}`;
}

const units: [number, string][] = [
  [86400 * 365.25, "year"],
  [86400 * 30.4375, "month"],
  [86400, "day"],
  [3600, "hour"],
  [60, "minute"],
  [1, "second"],
];

/** A length of time in its largest fitting unit: "3 minutes", "12 days". Below a second: "under a second". */
export function duration(seconds: number | undefined): string {
  const s = Math.abs(seconds ?? 0);
  for (const [size, name] of units) {
    if (s >= size) {
      const n =
        s / size < 10 && size < 86400 * 30 && size > 1 ? Math.floor((10 * s) / size) / 10 : Math.floor(s / size);
      return `${n} ${name}${n === 1 ? "" : "s"}`;
    }
  }
  return "under a second";
}

/** "3 minutes ago", "in 2 hours". */
export function ago(iso: string | undefined, now: number): string {
  const t = parse(iso);
  if (t === undefined) return "";
  const s = (now - t) / 1000;
  if (Math.abs(s) < 1) return "now";
  return s < 0 ? `in ${duration(s)}` : `${duration(s)} ago`;
}

/** "2026-04-10 18:00:05 UTC"; with `millis` the milliseconds too. */
export function utc(iso: string | undefined, millis = false): string {
  const t = parse(iso);
  if (t === undefined) return "–";
  const text = new Date(t).toISOString();
  return `${text.slice(0, 10)} ${text.slice(11, millis ? 23 : 19)} UTC`;
}

/** "18:05" of a UTC time, for the axis of a chart. */
export function clock(iso: string | undefined): string {
  const t = parse(iso);
  return t === undefined ? "–" : new Date(t).toISOString().slice(11, 16);
}

function parse(iso: string | undefined): number | undefined {
  if (!iso) return undefined;
  const t = Date.parse(iso);
  // The zero time of Go means "never".
  return Number.isNaN(t) || t <= Date.UTC(1, 0, 1) ? undefined : t;
}

/** The short form of a digest or id: "sha256:ab12cd34…". */
export function short(digest: string | undefined, keep = 10): string {
  if (!digest) return "–";
  const colon = digest.indexOf(":");
  const head = colon >= 0 && colon < 12 ? digest.slice(0, colon + 1) : "";
  const rest = digest.slice(head.length);
  return rest.length > keep + 2 ? `${head}${rest.slice(0, keep)}…` : digest;
}

/** A value of a request, an answer or an input in words. */
export function value(v: unknown): string {
  if (v === null || v === undefined) return "none";
  if (typeof v === "number") return real(v, 6);
  if (typeof v === "boolean") return v ? "true" : "false";
  if (typeof v === "string") return v === "" ? "(empty)" : v;
  if (Array.isArray(v)) return v.map(value).join("; ") || "(none)";
  return Object.entries(v)
    .map(([name, x]) => `${name} ${value(x)}`)
    .join(", ");
}

/** "warehouse_queue" as it is read aloud: "warehouse queue". */
export function words(name: string | undefined): string {
  return (name ?? "").replaceAll("_", " ");
}

/** "8.2 MB" in powers of ten. */
export function bytes(n: number | string | undefined): string {
  let v = Number(n ?? 0);
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (v < 1000) return `${unit === "B" ? v : v.toFixed(1)} ${unit}`;
    v /= 1000;
  }
  return `${v.toFixed(1)} TB`;
}

/** A time that a person or a program wrote into an address, as RFC 3339; undefined when it is none. */
export function instant(text: string | null | undefined): string | undefined {
  if (!text) return undefined;
  // Without a zone it is UTC, as the form says; Date would read it as the visitor's own time.
  const zoned = /(Z|[+-]\d\d:?\d\d)$/i.test(text) ? text : `${text.length === 10 ? `${text}T00:00` : text}Z`;
  const t = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(zoned) : Number.NaN;
  return Number.isNaN(t) ? undefined : new Date(t).toISOString();
}

/** A hub's message as a sentence: a capital at the start, a full stop at the end. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  return stop(trimmed.charAt(0).toUpperCase() + trimmed.slice(1));
}

/** Ends a text with a full stop unless it has an end. */
export function stop(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** How long before `decided` something happened: "3 seconds before the decision". */
export function ageAt(event: string | undefined, decided: string | undefined): string {
  const [at, then] = [parse(event), parse(decided)];
  if (at === undefined || then === undefined) return "–";
  if (at === then) return "at the decision";
  return `${duration((then - at) / 1000)} ${at < then ? "before" : "after"} the decision`;
}
