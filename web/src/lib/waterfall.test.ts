import { describe, expect, it } from "vitest";
import { duration, real, short, signed, utc } from "./format";
import { waterfall } from "./waterfall";

describe("waterfall", () => {
  it("leads from base to raw, largest first, and sums what is too small to show", () => {
    const contributions = Array.from({ length: 20 }, (_, i) => ({
      name: `f${i}`,
      contribution: (i % 2 ? -1 : 1) * (i + 1),
    }));
    const raw = -3 + contributions.reduce((sum, c) => sum + c.contribution, 0);
    const chart = waterfall(-3, raw, contributions, 5);
    expect(chart.steps.map((s) => s.name)).toEqual(["f19", "f18", "f17", "f16", "f15", "all others"]);
    expect(chart.steps[0]?.from).toBe(-3);
    expect(chart.steps.at(-1)?.to).toBeCloseTo(raw, 12);
    expect(chart.steps.at(-1)?.inputs).toBe(15);
    expect(Math.abs(chart.residual)).toBeLessThan(1e-12);
    for (const s of chart.steps) {
      expect(Math.min(s.from, s.to)).toBeGreaterThanOrEqual(chart.low);
      expect(Math.max(s.from, s.to)).toBeLessThanOrEqual(chart.high);
    }
  });

  it("shows what does not add up", () => {
    expect(waterfall(0, 2, [{ name: "a", contribution: 1 }]).residual).toBe(1);
  });
});

describe("format", () => {
  it("writes numbers, times and digests", () => {
    expect(real(0.248296888)).toBe("0.2483");
    expect(real(-12345.678)).toBe("−12,346");
    expect(real(0.00001234)).toBe("1.23e−5");
    expect(signed(2)).toBe("+2");
    expect(duration(90)).toBe("1.5 minutes");
    expect(duration(0.2)).toBe("under a second");
    expect(utc("2026-04-10T18:00:05.5Z")).toBe("2026-04-10 18:00:05 UTC");
    expect(utc("0001-01-01T00:00:00Z")).toBe("–");
    expect(short("sha256:af83227503c32b6258dabd48", 8)).toBe("sha256:af832275…");
  });
});
