import { useQuery } from "@tanstack/react-query";
import { api, data } from "../api/client";
import type { GraphNode } from "../api/types";
import { count, short } from "../lib/format";
import { Card, Empty, Failure, Loading } from "./basics";

// The way of data into a decision, first to last. Kinds as the hub names them.
const stages: { title: string; kinds: string[] }[] = [
  { title: "Data", kinds: ["dataset", "commit"] },
  { title: "Feature views", kinds: ["view"] },
  { title: "Training set", kinds: ["trainingset"] },
  { title: "Service", kinds: ["service"] },
  { title: "Models", kinds: ["model"] },
  { title: "Approvals", kinds: ["approval"] },
  { title: "People", kinds: ["actor"] },
  { title: "Endpoint and policy", kinds: ["endpoint", "policy"] },
];

/** What a decision came from, as a strip of stages; every stage opens to its nodes. */
export function LineageCard({ decisionId }: { decisionId: string }) {
  const node = `decision:${decisionId}`;
  const graph = useQuery({
    queryKey: ["lineage", node],
    queryFn: () => data(api.GET("/v1/lineage", { params: { query: { node, direction: "up", limit: 1000 } } })),
  });
  const nodes = graph.data?.nodes ?? [];
  return (
    <Card title="Where it came from" id="lineage" wide>
      {graph.isPending && <Loading what="the lineage" />}
      {graph.error && <Failure error={graph.error} what="the lineage" />}
      {graph.data && nodes.length <= 1 && <Empty>Nothing is recorded above this decision.</Empty>}
      {nodes.length > 1 && (
        <ol className="strip">
          {stages.map((stage) => {
            const here = nodes.filter((n) => stage.kinds.includes(n.kind ?? ""));
            return here.length === 0 ? null : <Stage key={stage.title} title={stage.title} nodes={here} />;
          })}
          <li className="focus">
            <h3>This decision</h3>
            <p className="mono">{short(decisionId, 8)}</p>
          </li>
        </ol>
      )}
      {graph.data?.truncated && <p className="quiet">More than 1,000 nodes; the rest is left out here.</p>}
    </Card>
  );
}

function Stage({ title, nodes }: { title: string; nodes: GraphNode[] }) {
  const first = nodes.slice(0, 3);
  const rest = nodes.slice(3);
  return (
    <li>
      <h3>{title}</h3>
      <ul>
        {first.map((n) => (
          <Name key={n.id} node={n} />
        ))}
      </ul>
      {rest.length > 0 && (
        <details>
          <summary>{count(rest.length)} more</summary>
          <ul>
            {rest.map((n) => (
              <Name key={n.id} node={n} />
            ))}
          </ul>
        </details>
      )}
    </li>
  );
}

function Name({ node }: { node: GraphNode }) {
  return (
    <li title={node.id}>
      <span className="quiet">{node.kind}</span> <span className="mono">{short(node.label, 22)}</span>
    </li>
  );
}
