import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import { api, data } from "../api/client";
import type { GraphNode } from "../api/types";
import { count } from "../lib/format";
import { type Stage, way } from "../lib/way";
import { Card, Chip, Empty, Failure, Loading } from "./basics";

const most = 6;

/** What a decision came from, as a way from the data down to it: stage after stage, with who did what. */
export function LineageCard({ decisionId, answeredBy }: { decisionId: string; answeredBy: string }) {
  const node = `decision:${decisionId}`;
  const graph = useQuery({
    queryKey: ["lineage", node],
    queryFn: () => data(api.GET("/v1/lineage", { params: { query: { node, direction: "up", limit: 1000 } } })),
  });
  const stages = graph.data ? way(graph.data) : [];
  return (
    <Card title="Where it came from" id="lineage" wide>
      {graph.isPending && <Loading what="the lineage" />}
      {graph.error && <Failure error={graph.error} what="the lineage of this decision" />}
      {graph.data && stages.length === 0 && <Empty>Nothing is recorded above this decision.</Empty>}
      {stages.length > 0 && (
        <ol className="way">
          {stages.map((stage) => (
            <StageRow key={stage.title} stage={stage} answeredBy={answeredBy} />
          ))}
          <li className="focus">
            <h3>This decision</h3>
            <p className="mono">{decisionId}</p>
          </li>
        </ol>
      )}
      {graph.data?.truncated && <p className="quiet">More than 1,000 nodes; the rest is left out here.</p>}
    </Card>
  );
}

function StageRow({ stage, answeredBy }: { stage: Stage; answeredBy: string }) {
  const rest = stage.nodes.slice(most);
  const everybody = new Set(stage.nodes.map((n) => n.people.join(" and ")));
  const all = everybody.size === 1 && stage.nodes.length > 1 ? [...everybody][0] : undefined;
  const item = (n: Stage["nodes"][number]) => (
    <li key={n.node.id} className="node" title={n.node.id}>
      <span className="quiet">{n.kind}</span> <Name node={n.node} text={n.name} />
      {n.about.length > 0 && <span className="quiet"> of {n.about.join(", ")}</span>}
      {!all && n.people.length > 0 && (
        <span className="quiet">
          , {stage.did} <strong>{n.people.join(" and ")}</strong>
        </span>
      )}
      {n.node.kind === "model" && n.node.label === answeredBy && (
        <>
          {" "}
          <Chip tone="good">answered</Chip>
        </>
      )}
    </li>
  );
  return (
    <li>
      <h3>{stage.title}</h3>
      <div>
        <ul>{stage.nodes.slice(0, most).map(item)}</ul>
        {rest.length > 0 && (
          <details>
            <summary>{count(rest.length)} more</summary>
            <ul>{rest.map(item)}</ul>
          </details>
        )}
        {all && (
          <p className="quiet">
            {stage.nodes.length === 2 ? "Both" : "All"} {stage.did} <strong>{all}</strong>
          </p>
        )}
      </div>
    </li>
  );
}

/** A node's name; a link where there is a page about it: the decisions of a model or of an endpoint. */
function Name({ node, text }: { node: GraphNode; text: string }) {
  const label = node.label ?? "";
  if (node.kind === "model") {
    return (
      <Link className="mono" to={`/decisions?model=${encodeURIComponent(label)}`} title={`Decisions by ${label}`}>
        {text}
      </Link>
    );
  }
  if (node.kind === "endpoint") {
    const name = label.replace(/@v\d+$/, "");
    return (
      <Link className="mono" to={`/decisions?endpoint=${encodeURIComponent(name)}`} title={`Decisions of ${name}`}>
        {text}
      </Link>
    );
  }
  return <span className="mono">{text}</span>;
}
