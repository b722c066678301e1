import type { Input } from "../api/types";
import { real, signed, value, words } from "../lib/format";
import { type Step, sigmoid, tolerance, waterfall } from "../lib/waterfall";
import { Table } from "./basics";

/**
 * How the raw score came to be: from where the model starts over each input's exact contribution. All bars share one
 * scale; the numbers beside them and the table below say the same. `score` is undefined when a gate kept it back.
 */
export function Waterfall(props: { base: number; raw: number; score: number | undefined; inputs: readonly Input[] }) {
  const { score } = props;
  const contributions = props.inputs.map((i) => ({ name: i.name ?? "", contribution: i.contribution ?? 0 }));
  const chart = waterfall(props.base, props.raw, contributions);
  const span = chart.high - chart.low || 1;
  const at = (x: number) => 2 + (96 * (x - chart.low)) / span;
  const logistic = score !== undefined && Math.abs(sigmoid(props.raw) - score) < 1e-9;
  const inputValue = (name: string) => props.inputs.find((i) => i.name === name)?.value;
  const start = at(chart.base);
  return (
    <>
      <p className="quiet">
        Each bar is an input's contribution to the raw score (log-odds for a binary model). Contributions are exact
        (TreeSHAP).
      </p>
      <p className="legend">
        <span className="swatch up" /> raises the score <span className="swatch down" /> lowers the score
      </p>
      <figure className="waterfall" aria-label="Contributions to the raw score">
        <div className="row end">
          <span className="name">Where the model starts</span>
          <Bar from={start} to={start} start={start} kind="end" />
          <span className="amount">{signed(chart.base)}</span>
        </div>
        {chart.steps.map((s) => (
          <div className="row" key={s.name}>
            <span className="name">
              {words(s.name)}
              {s.inputs === 1 ? <span className="quiet"> = {value(inputValue(s.name))}</span> : ` (${s.inputs} inputs)`}
            </span>
            <Bar from={at(s.from)} to={at(s.to)} start={start} kind={s.delta > 0 ? "up" : "down"} />
            <span className="amount">{signed(s.delta)}</span>
          </div>
        ))}
        <div className="row end">
          <span className="name">Raw score</span>
          <Bar from={at(chart.raw)} to={at(chart.raw)} start={start} kind="end" />
          <span className="amount">{signed(chart.raw)}</span>
        </div>
      </figure>
      {score !== undefined && (
        <p>
          Model score <strong>{real(score, 4)}</strong>
          {logistic && <span className="quiet"> = 1 / (1 + e^−raw score)</span>}
        </p>
      )}
      <p className={Math.abs(chart.residual) <= tolerance ? "quiet" : "state bad"}>
        {Math.abs(chart.residual) <= tolerance
          ? `Adds up: start plus all contributions is the raw score, to within 0.000001.`
          : `Does not add up: ${signed(chart.residual)} is unexplained.`}
      </p>
      <details>
        <summary>The same as a table</summary>
        <Table<Pick<Step, "name" | "to"> & { delta?: number }>
          label="Contributions to the score"
          room="little"
          rows={[{ name: "start", to: chart.base }, ...chart.steps]}
          keyOf={(s) => s.name}
          columns={[
            { head: "Step", name: true, cell: (s) => words(s.name) },
            {
              head: "Contribution",
              number: true,
              cell: (s) => (s.delta === undefined ? undefined : signed(s.delta, 5)),
            },
            { head: "Sum so far", number: true, cell: (s) => signed(s.to, 5) },
          ]}
        />
      </details>
    </>
  );
}

/** One bar on the shared scale of 0 to 100, with a line where the model starts. */
function Bar({ from, to, start, kind }: { from: number; to: number; start: number; kind: "up" | "down" | "end" }) {
  const left = Math.min(from, to);
  const width = Math.max(0.6, Math.abs(to - from));
  return (
    <svg className={`track ${kind}`} viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      <line className="start" x1={start} x2={start} y1="0" y2="10" vectorEffect="non-scaling-stroke" />
      <rect x={left} y="1" width={width} height="8" />
    </svg>
  );
}
