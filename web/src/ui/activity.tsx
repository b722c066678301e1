import type { Bucket } from "../api/types";
import { clock, count, percent } from "../lib/format";
import { Table } from "./basics";

/** Decisions per minute as bars, the part that the rules answered in the warning colour, and the same as a table. */
export function Activity({ buckets, minutes, now }: { buckets: readonly Bucket[]; minutes: number; now: number }) {
  const last = Math.floor(now / 60_000);
  const bars = Array.from({ length: minutes }, (_, i) => {
    const minute = last - minutes + 1 + i;
    const found = buckets.find((b) => Math.floor(Date.parse(b.start ?? "") / 60_000) === minute);
    return {
      start: new Date(minute * 60_000).toISOString(),
      decisions: Number(found?.decisions ?? 0),
      fallbacks: Number(found?.fallbacks ?? 0),
    };
  });
  const top = Math.max(1, ...bars.map((b) => b.decisions));
  const busy = bars.filter((b) => b.decisions > 0);
  return (
    <>
      <figure className="activity">
        <figcaption className="quiet">
          Decisions per minute, last {minutes} minutes (UTC); highest {count(Math.max(...bars.map((b) => b.decisions)))}{" "}
          a minute. The lighter part was answered by the rules.
        </figcaption>
        <svg viewBox={`0 0 ${minutes} 100`} preserveAspectRatio="none" role="img" aria-label="Decisions per minute">
          {bars.map((b, i) => {
            const height = (100 * b.decisions) / top;
            const rules = (100 * b.fallbacks) / top;
            return (
              <g key={b.start}>
                <rect className="bar-model" x={i + 0.1} width="0.8" y={100 - height} height={height - rules} />
                <rect className="bar-rules" x={i + 0.1} width="0.8" y={100 - rules} height={rules} />
              </g>
            );
          })}
        </svg>
        <div className="axis" aria-hidden="true">
          <span>{clock(bars[0]?.start)}</span>
          <span>{clock(bars[Math.floor(minutes / 2)]?.start)}</span>
          <span>{clock(bars.at(-1)?.start)}</span>
        </div>
      </figure>
      <details>
        <summary>The same as a table</summary>
        {busy.length === 0 ? (
          <p className="state">No decision in the last {minutes} minutes.</p>
        ) : (
          <Table
            label="Decisions per minute"
            room="little"
            rows={busy}
            keyOf={(b) => b.start}
            columns={[
              { head: "Minute (UTC)", name: true, cell: (b) => clock(b.start) },
              { head: "Decisions", number: true, cell: (b) => count(b.decisions) },
              { head: "By the rules", number: true, cell: (b) => count(b.fallbacks) },
              { head: "Share", number: true, cell: (b) => percent(b.fallbacks, b.decisions) },
            ]}
          />
        )}
      </details>
    </>
  );
}
