import { describe, expect, it } from "vitest";
import type { Graph } from "../api/types";
import { way } from "./way";

const node = (id: string, label = id.slice(id.indexOf(":") + 1)) => ({ id, kind: id.slice(0, id.indexOf(":")), label });
const approval = "approval:01a21258-915b-7bef-a002-a1867569c940";
const graph: Graph = {
  nodes: [
    node("actor:bob"),
    node("endpoint:route@v1"),
    node("policy:17"),
    node(approval),
    node("model:late-risk@v1"),
    node(`trainingset:${"0".repeat(64)}`),
    node("service:route-risk@v1"),
    node("view:warehouse_load@v1"),
    node("commit:warehouse_load@v1/3"),
    node("dataset:orders.csv"),
    node("decision:d"),
  ],
  edges: [
    { from: approval, to: "model:late-risk@v1", kind: "approves" },
    { from: "actor:bob", to: approval, kind: "wrote" },
  ],
};

describe("way", () => {
  it("goes from the sources to the endpoint, in words", () => {
    expect(way(graph).map((s) => [s.title, s.nodes.map((n) => `${n.kind} ${n.name}`)])).toEqual([
      ["Sources", ["data set orders.csv", "commit warehouse_load@v1 no. 3"]],
      ["Feature views", ["view warehouse_load@v1", "feature service route-risk@v1"]],
      ["Training set", ["training set 000000000000…"]],
      ["Model", ["model late-risk@v1"]],
      ["Approval", ["approval 01a21258-915…"]],
      ["Endpoint", ["endpoint route@v1", "policy revision 17"]],
    ]);
  });

  it("says who did what, and of what an approval is", () => {
    const given = (label?: string) =>
      way({ ...graph, nodes: [node(approval, label), ...(graph.nodes ?? []).filter((n) => n.kind !== "approval")] })
        .find((s) => s.title === "Approval")
        ?.nodes.map((n) => [n.name, n.about, n.people]);
    expect(given()).toEqual([["01a21258-915…", ["late-risk@v1"], ["bob"]]]);
    expect(given("late-risk@v1 by bob")).toEqual([["late-risk@v1 by bob", [], []]]);
  });

  it("leaves out what there is nothing of, and loses no kind that it does not know", () => {
    expect(way({ nodes: [node("decision:d")] })).toEqual([]);
    expect(way({ nodes: [node("sensor:s")] }).map((s) => s.title)).toEqual(["Sources"]);
  });
});
