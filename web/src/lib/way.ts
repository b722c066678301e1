// The lineage of a decision, put into the order in which it came about. Pure, so that it can be tested without a page.

import type { Graph, GraphNode } from "../api/types";
import { short } from "./format";

/** One thing on the way, in words. */
export interface Waypoint {
  node: GraphNode;
  /** "training set": what it is. */
  kind: string;
  name: string;
  /** What an approval is of; empty for everything else. */
  about: string[];
  /** Who made, gave or published it. */
  people: string[];
}

export interface Stage {
  title: string;
  /** "published by": how the people of this stage came to it. */
  did: string;
  nodes: Waypoint[];
}

/** First to last. Kinds as the hub names them; people are told beside what they did. */
const order: { title: string; did: string; kinds: string[] }[] = [
  { title: "Sources", did: "written by", kinds: ["dataset", "commit"] },
  { title: "Feature views", did: "published by", kinds: ["view", "service"] },
  { title: "Training set", did: "made by", kinds: ["trainingset"] },
  { title: "Model", did: "registered by", kinds: ["model"] },
  { title: "Approval", did: "given by", kinds: ["approval"] },
  { title: "Endpoint", did: "published by", kinds: ["endpoint", "policy"] },
];

const kinds: Record<string, string> = {
  dataset: "data set",
  trainingset: "training set",
  service: "feature service",
  policy: "policy revision",
  actor: "person",
};

/** The stages that the graph has something of, in order; a kind that is not known comes first, as a source. */
export function way(graph: Graph): Stage[] {
  const nodes = graph.nodes ?? [];
  const label = new Map(nodes.map((n) => [n.id, n.label ?? n.id ?? ""]));
  const known = new Set([...order.flatMap((s) => s.kinds), "actor", "decision"]);
  return order
    .map(({ title, did, kinds: here }, i) => ({
      title,
      did,
      nodes: nodes
        .filter((n) => here.includes(n.kind ?? "") || (i === 0 && !known.has(n.kind ?? "")))
        .sort((a, b) => here.indexOf(a.kind ?? "") - here.indexOf(b.kind ?? ""))
        .map((node) => {
          const to = (kind: string) => (graph.edges ?? []).filter((e) => e.kind === kind && e.to === node.id);
          const name = nameOf(node);
          const about = (graph.edges ?? [])
            .filter((e) => e.kind === "approves" && e.from === node.id)
            .map((e) => label.get(e.to) ?? e.to ?? "");
          const people = to("wrote").map((e) => label.get(e.from) ?? e.from ?? "");
          return {
            node,
            kind: kinds[node.kind ?? ""] ?? node.kind ?? "",
            name,
            // A label that says it already need not be told twice.
            about: about.filter((a) => !name.includes(a)),
            people: people.filter((p) => !new RegExp(`\\b${p.replace(/[^\w]/g, "\\$&")}\\b`).test(name)),
          };
        }),
    }))
    .filter((s) => s.nodes.length > 0);
}

/** A node's label in words; a long digest or an id is cut, the whole of it is in the node's id. */
function nameOf(node: GraphNode): string {
  const label = node.label ?? "";
  const commit = node.kind === "commit" ? /^(.*)\/(\d+)$/.exec(label) : null;
  if (commit) return `${commit[1]} no. ${commit[2]}`;
  return /^(sha256:)?[0-9a-f]{32,}$/.test(label) || /^[0-9a-f]{8}-[0-9a-f-]{27}$/.test(label)
    ? short(label, 12)
    : label;
}
