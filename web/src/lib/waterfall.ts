// The arithmetic of the waterfall: base + contributions = raw. Pure, so that it can be tested without a page.

/** One thing that moved the score. */
export interface Contribution {
  name: string;
  contribution: number;
}

/** One bar, from where the sum stood to where it stands after. */
export interface Step {
  name: string;
  from: number;
  to: number;
  delta: number;
  /** How many inputs the bar stands for: 1, or more for "all others". */
  inputs: number;
}

export interface Waterfall {
  base: number;
  raw: number;
  steps: Step[];
  /** raw − (base + Σ contributions) computed here, not copied from the hub. */
  residual: number;
  /** The range that all bars and both ends fit into. */
  low: number;
  high: number;
}

/** How far Σ may be from raw before the page says that it does not add up (float64 sums of a few hundred terms). */
export const tolerance = 1e-6;

/**
 * Bars in order of size of the contribution, largest first; beyond `top` they are summed into one bar, so that the
 * bars always lead from base to the sum of all contributions. Inputs that moved nothing get no bar of their own.
 */
export function waterfall(base: number, raw: number, contributions: readonly Contribution[], top = 9): Waterfall {
  const moved = contributions
    .filter((c) => Number.isFinite(c.contribution) && c.contribution !== 0)
    .toSorted((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution) || (a.name < b.name ? -1 : 1));
  const shown = moved.length > top + 1 ? moved.slice(0, top) : moved;
  const rest = moved.slice(shown.length);
  const steps: Step[] = [];
  let at = base;
  const push = (name: string, delta: number, inputs: number) => {
    steps.push({ name, from: at, to: at + delta, delta, inputs });
    at += delta;
  };
  for (const c of shown) push(c.name, c.contribution, 1);
  if (rest.length > 0) {
    push(
      "all others",
      rest.reduce((sum, c) => sum + c.contribution, 0),
      rest.length,
    );
  }
  const points = [base, raw, ...steps.map((s) => s.to)];
  return { base, raw, steps, residual: raw - at, low: Math.min(...points), high: Math.max(...points) };
}

/** The probability that a raw score in log-odds stands for. */
export function sigmoid(raw: number): number {
  return 1 / (1 + Math.exp(-raw));
}
