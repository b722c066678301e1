import type { Input } from "../api/types";
import { real, signed, value, words } from "../lib/format";
import { sigmoid, tolerance, waterfall } from "../lib/waterfall";
import { Table } from "./basics";

/**
 * How the score came to be: from the expected log-odds over each input's exact contribution to the raw score.
 * Bars share one scale; the numbers beside them and the table below say the same.
 */
export function Waterfall(props: { base: number; raw: number; score: number; inputs: readonly Input[] }) {
  const contributions = props.inputs.map((i) => ({ name: i.name ?? "", contribution: i.contribution ?? 0 }));
  const chart = waterfall(props.base, props.raw, contributions);
  const span = chart.high - chart.low || 1;
  const at = (x: number) => 2 + (96 * (x - chart.low)) / span;
  const probability = Math.abs(sigmoid(props.raw) - props.score) < 1e-9;
  const end = (x: number) => (probability ? `${signed(x)} (${real(100 * sigmoid(x), 3)} %)` : signed(x));
  const inputValue = (name: string) => props.inputs.find((i) => i.name === name)?.value;
  return (
    <>
      <p className="quiet">
        {probability
          ? "In log-odds of the risk; in brackets as a probability. Contributions are exact (TreeSHAP) and add up to the score."
          : "In units of the raw score. Contributions are exact (TreeSHAP) and add up to the score."}
      </p>
      <figure className="waterfall" aria-label="Contributions to the score">
        <div className="row end">
          <span className="name">Where the model starts</span>
          <Bar from={at(chart.base)} to={at(chart.base)} kind="end" />
          <span className="amount">{end(chart.base)}</span>
        </div>
        {chart.steps.map((s) => (
          <div className="row" key={s.name}>
            <span className="name">
              {words(s.name)}
              {s.inputs === 1 ? <span className="quiet"> = {value(inputValue(s.name))}</span> : ` (${s.inputs} inputs)`}
            </span>
            <Bar from={at(s.from)} to={at(s.to)} kind={s.delta > 0 ? "up" : "down"} />
            <span className="amount">{signed(s.delta)}</span>
          </div>
        ))}
        <div className="row end">
          <span className="name">The score</span>
          <Bar from={at(chart.raw)} to={at(chart.raw)} kind="end" />
          <span className="amount">{end(chart.raw)}</span>
        </div>
      </figure>
      <p className={Math.abs(chart.residual) <= tolerance ? "quiet" : "state bad"}>
        {Math.abs(chart.residual) <= tolerance
          ? `Adds up: start plus all contributions is the score, to within ${real(Math.abs(chart.residual), 2)}.`
          : `Does not add up: ${signed(chart.residual)} is unexplained.`}
      </p>
      <details>
        <summary>The same as a table</summary>
        <Table
          label="Contributions to the score"
          head={
            <tr>
              <th scope="col">Step</th>
              <th scope="col" className="number">
                Contribution
              </th>
              <th scope="col" className="number">
                Sum so far
              </th>
            </tr>
          }
        >
          <tr>
            <td>start</td>
            <td />
            <td className="number">{signed(chart.base, 5)}</td>
          </tr>
          {chart.steps.map((s) => (
            <tr key={s.name}>
              <td>{words(s.name)}</td>
              <td className="number">{signed(s.delta, 5)}</td>
              <td className="number">{signed(s.to, 5)}</td>
            </tr>
          ))}
        </Table>
      </details>
    </>
  );
}

/** One bar on the shared scale of 0 to 100. */
function Bar({ from, to, kind }: { from: number; to: number; kind: "up" | "down" | "end" }) {
  const left = Math.min(from, to);
  const width = Math.max(0.6, Math.abs(to - from));
  return (
    <svg className={`track ${kind}`} viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      <rect x={left} y="1" width={width} height="8" />
    </svg>
  );
}
