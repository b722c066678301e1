import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useParams } from "react-router";
import { api, data } from "../api/client";
import type { Decision, Input } from "../api/types";
import { ageAt, count, real, sentence, short, signed, stop, utc, value, words } from "../lib/format";
import { answeredBy, blockingGate, headline, kindOf, whyRules } from "../lib/verdict";
import { Card, Chip, type Column, Empty, Fact, Facts, Failure, Loading, refused, Table, useTitle } from "../ui/basics";
import { LineageCard } from "../ui/lineage";
import { type Proof, ProofAlert, ProofCard, ProofChip, useProof } from "../ui/proof";
import { Waterfall } from "../ui/waterfall";

/** The waybill of one decision: all that is needed to understand it and to check it. */
export function DecisionPage() {
  const { id = "" } = useParams();
  const query = useQuery({
    queryKey: ["decision", id],
    queryFn: () => data(api.GET("/v1/decisions/{decision_id}", { params: { path: { decision_id: id } } })),
  });
  const d = query.data?.decision;
  const proof = useProof(id, d);
  useTitle(d?.summary?.business_key || "Decision");
  if (query.isPending) return <Loading what="the decision" />;
  if (query.error || !d) {
    return (
      <>
        <h1>Decision</h1>
        <Failure error={query.error ?? new Error("The hub sent no decision.")} what={`decision ${id}`} />
      </>
    );
  }
  const ranked = (d.candidates ?? []).length > 0;
  return (
    <>
      <ProofAlert proof={proof} />
      <Verdict d={d} proof={proof} />
      <div className="grid">
        <div className="column">
          <Reasons d={d} />
          {!modelAsked(d) && <Order d={d} />}
        </div>
        <div className="column">
          <Approval d={d} />
          {modelAsked(d) && <Order d={d} />}
          {!ranked && <Gates d={d} />}
        </div>
        <Inputs d={d} />
        {ranked && (
          <div className="column">
            <Candidates d={d} />
          </div>
        )}
        {ranked ? (
          <div className="column">
            <Gates d={d} />
            <Outcomes d={d} />
          </div>
        ) : (
          <Outcomes d={d} wide />
        )}
        <LineageCard decisionId={id} answeredBy={answeredBy(d)} />
        <ProofCard proof={proof} />
        <Again d={d} id={id} />
      </div>
    </>
  );
}

/** Whose score it is: without a declared meaning no more than that can be said of the number. */
const scoreName = (d: Decision) => (kindOf(d) === "rules" ? "Rule score" : "Model score");

/** Whether a model was asked, be it that a gate held its answer back. */
const modelAsked = (d: Decision) => Boolean(d.summary?.model);

function Verdict({ d, proof }: { d: Decision; proof: Proof }) {
  const s = d.summary ?? {};
  return (
    <header>
      <p className="quiet">
        <Link to="/decisions">Decisions</Link> / waybill <span className="mono">{s.decision_id}</span>
      </p>
      <div className="title">
        <h1>{headline(d)}</h1>
        <ProofChip proof={proof} />
      </div>
      <Facts line>
        <Fact name="Decided">{utc(s.decided_at, true)}</Fact>
        <Fact name="Endpoint">
          {s.endpoint}@v{s.revision}
        </Fact>
        {kindOf(d) !== "blocked" && <Fact name={scoreName(d)}>{real(s.score, 4)}</Fact>}
        <Fact name="Took">{real(d.latency_ms, 3)} ms</Fact>
        <Fact name="Asked by">{d.actor}</Fact>
        <Fact name="Log entry">{count(s.index)}</Fact>
      </Facts>
    </header>
  );
}

function Reasons({ d }: { d: Decision }) {
  const kind = kindOf(d);
  const gate = blockingGate(d);
  const fallback = d.answer?.fallback as { rule?: string } | undefined;
  return (
    <Card title="Why" id="why">
      {kind === "blocked" && (
        <>
          <p>
            <Chip tone="bad">Blocked</Chip> Gate <strong>{gate?.gate}</strong>, asked {gate?.stage} the model, let
            nothing be decided: {stop(gate?.reason || "it gave no reason")}
          </p>
          {modelAsked(d) ? (
            <>
              <p className="quiet">Model {d.summary?.model} had answered; the gate held its answer back.</p>
              <Waterfall base={d.base ?? 0} raw={d.raw ?? 0} score={undefined} inputs={d.inputs ?? []} />
            </>
          ) : (
            <p className="quiet">
              {d.fallback_reason
                ? "The rules had answered in the model's place; the gate held their answer back."
                : "No model was asked. So there is no score, nothing contributed to one, and no candidate was ranked."}
            </p>
          )}
        </>
      )}
      {kind === "rules" && (
        <>
          <p>
            <Chip tone="warn">Fallback</Chip> The rules answered, because {stop(whyRules(d.fallback_reason))}
          </p>
          <Facts>
            <Fact name="Rule set">{answeredBy(d) || "–"}</Fact>
            <Fact name="Rule that matched">{fallback?.rule || "none; the default"}</Fact>
          </Facts>
          <p className="quiet">Rules have no contributions; what they read is in the table of inputs.</p>
        </>
      )}
      {kind === "model" && (
        <Waterfall base={d.base ?? 0} raw={d.raw ?? 0} score={d.summary?.score ?? 0} inputs={d.inputs ?? []} />
      )}
    </Card>
  );
}

function Approval({ d }: { d: Decision }) {
  const kind = kindOf(d);
  if (kind === "blocked" && !modelAsked(d)) {
    return (
      <Card title="On whose approval" id="approval">
        <p>
          No approval of a model was called upon. The gate belongs to endpoint revision{" "}
          <strong>
            {d.summary?.endpoint}@v{d.summary?.revision}
          </strong>
          ; who published that is in the lineage below.
        </p>
        <Facts>
          <Fact name="Policy revision">{count(d.policy_rev)}</Fact>
        </Facts>
      </Card>
    );
  }
  const rules = kind === "rules";
  const state = d.model_state_now;
  return (
    <Card
      title="On whose approval"
      id="approval"
      aside={
        state === "approved" ? (
          <Chip tone="good">Still in force</Chip>
        ) : (
          (state || !rules) && <Chip tone="bad">Since then {state || "gone"}</Chip>
        )
      }
    >
      {rules && (
        <p>
          The model did not answer: {stop(whyRules(d.fallback_reason))} What follows is the consent behind the rules
          that did.
        </p>
      )}
      <Facts>
        <Fact name={rules ? "Rule set" : "Model"}>{(rules ? answeredBy(d) : d.summary?.model) || "–"}</Fact>
        <Fact name="Approved by">{d.approver || "–"}</Fact>
        <Fact name="On">{utc(d.approved_at)}</Fact>
        <Fact name="Because">{d.approval_reason || "–"}</Fact>
        <Fact name="Exact bytes">
          <code title={d.model_digest}>{short(d.model_digest, 16)}</code>
        </Fact>
        {!rules && (
          <Fact name="Training set">
            <code title={d.training_set}>{short(d.training_set, 16)}</code>
          </Fact>
        )}
        <Fact name="Feature service">{d.feature_service || "–"}</Fact>
        <Fact name="Policy revision">{count(d.policy_rev)}</Fact>
      </Facts>
    </Card>
  );
}

function Order({ d }: { d: Decision }) {
  return (
    <Card title="What was asked" id="order">
      <Facts>
        {Object.entries(d.request ?? {}).map(([name, v]) => (
          <Fact key={name} name={words(name)}>
            <span className="mono">{value(v)}</span>
          </Fact>
        ))}
      </Facts>
      <details>
        <summary>The answer as it was sent</summary>
        <pre tabIndex={0}>{JSON.stringify(d.answer, null, 2)}</pre>
      </details>
    </Card>
  );
}

/** Where an input's value came from: a view's commit, an expression over views and request, or the request. */
function origin(i: Input): string {
  if (i.view) return i.view;
  return i.sources?.length ? `computed from ${i.sources.join(", ")}` : "request";
}

function Inputs({ d }: { d: Decision }) {
  const inputs = [...(d.inputs ?? [])].sort((a, b) => Math.abs(b.contribution ?? 0) - Math.abs(a.contribution ?? 0));
  const columns: Column<Input>[] = [
    { head: "Input", name: true, cell: (i) => words(i.name) },
    { head: "Value", number: true, share: 4, cell: (i) => value(i.value) },
    {
      head: "Status",
      share: 4,
      cell: (i) =>
        i.status === "PRESENT" ? (
          <Chip tone="good">present</Chip>
        ) : (
          <Chip tone="warn">{words(i.status).toLowerCase()}</Chip>
        ),
    },
    { head: "Origin", share: 8, cell: (i) => (i.view ? origin(i) : <span className="quiet">{origin(i)}</span>) },
    {
      head: "Commit",
      number: true,
      share: 4,
      cell: (i) => (Number(i.sequence ?? 0) > 0 ? count(i.sequence) : undefined),
    },
    {
      head: "Age",
      // Counted here from two times that the proof covers, as of the decision and not of today.
      cell: (i) =>
        i.event_time ? (
          <span className="time" title={`Event time ${utc(i.event_time)}`}>
            {ageAt(i.event_time, d.summary?.decided_at)}
          </span>
        ) : undefined,
    },
    {
      head: "Event time",
      cell: (i) => (i.event_time ? <span className="time">{utc(i.event_time)}</span> : undefined),
    },
  ];
  if (modelAsked(d)) {
    columns.splice(2, 0, { head: "Contribution", number: true, share: 4, cell: (i) => signed(i.contribution) });
  }
  return (
    <Card title="Every input, with version and age" id="inputs" wide>
      {modelAsked(d) && inputs.length > 0 && (
        <p className="quiet">
          Largest contribution to the raw score first. Ages are as of the decision, {utc(d.summary?.decided_at)}.
        </p>
      )}
      {inputs.length === 0 ? (
        <Empty>No input was read; the decision ended before.</Empty>
      ) : (
        <Table label="Inputs of the decision" room="much" rows={inputs} keyOf={(i) => i.name ?? ""} columns={columns} />
      )}
    </Card>
  );
}

function Candidates({ d }: { d: Decision }) {
  const [all, setAll] = useState(false);
  const sorted = [...(d.candidates ?? [])].sort(
    (a, b) => Number(b.eligible) - Number(a.eligible) || (a.cost ?? 0) - (b.cost ?? 0),
  );
  const shown = all ? sorted : sorted.slice(0, 6);
  const chosen = (action: string | undefined) => action === d.summary?.action;
  return (
    <Card title="What else was possible" id="candidates">
      <p className="quiet">
        The endpoint computes a cost for every candidate, in no declared unit; the cheapest eligible one is chosen, or
        the cheapest of all when none is. Scores are {kindOf(d) === "rules" ? "the rules'" : "the model's"}.
      </p>
      <Table
        label="Ranked candidates"
        room="some"
        rows={shown}
        keyOf={(c) => c.action ?? ""}
        mark={(c) => chosen(c.action)}
        columns={[
          { head: "Candidate", name: true, cell: (c) => c.action },
          { head: "Rank", number: true, share: 3, cell: (c, i) => (c.eligible ? i + 1 : undefined) },
          { head: "Cost", number: true, share: 3, cell: (c) => real(c.cost) },
          { head: "Score", number: true, share: 3, cell: (c) => real(c.score, 3) },
          {
            head: "Verdict",
            share: 3,
            cell: (c) =>
              chosen(c.action) ? (
                <Chip tone="good">chosen</Chip>
              ) : c.eligible ? (
                "possible"
              ) : (
                <Chip tone="quiet">not eligible</Chip>
              ),
          },
        ]}
      />
      {sorted.length > 6 && (
        <button type="button" className="plain" onClick={() => setAll(!all)} aria-expanded={all}>
          {all ? "Show the best six" : `Show all ${count(sorted.length)}`}
        </button>
      )}
    </Card>
  );
}

function Gates({ d }: { d: Decision }) {
  const gates = d.gates ?? [];
  return (
    <Card title="Gates" id="gates">
      {gates.length === 0 ? (
        <Empty>This endpoint revision has no gates.</Empty>
      ) : (
        <Table
          label="Verdicts of the gates"
          room="some"
          rows={gates}
          keyOf={(g, i) => `${g.gate} ${i}`}
          columns={[
            { head: "Gate", name: true, cell: (g) => g.gate },
            { head: "Asked", cell: (g) => `${g.stage} the model` },
            {
              head: "Verdict",
              cell: (g) => (
                <Chip tone={g.verdict === "allow" ? "good" : g.verdict === "block" ? "bad" : "warn"}>{g.verdict}</Chip>
              ),
            },
            { head: "Reason", cell: (g) => g.reason || undefined },
          ]}
        />
      )}
    </Card>
  );
}

function Outcomes({ d, wide = false }: { d: Decision; wide?: boolean }) {
  const outcomes = d.outcomes ?? [];
  return (
    <Card title="What happened" id="outcomes" wide={wide}>
      {outcomes.length === 0 ? (
        <Empty>No outcome reported yet.</Empty>
      ) : (
        <Table
          label="Reported outcomes"
          room="some"
          rows={outcomes}
          keyOf={(o) => `${o.name} ${o.reported_at}`}
          columns={[
            { head: "Outcome", name: true, cell: (o) => words(o.name) },
            { head: "Value", cell: (o) => value(o.value) },
            { head: "Happened", cell: (o) => utc(o.event_time) },
            { head: "Reported", cell: (o) => utc(o.reported_at) },
            { head: "By", cell: (o) => o.actor },
          ]}
        />
      )}
    </Card>
  );
}

function Again({ d, id }: { d: Decision; id: string }) {
  const replay = useMutation({
    mutationFn: () =>
      data(api.POST("/v1/decisions/{decision_id}:replay", { params: { path: { decision_id: id } }, body: {} })),
  });
  const r = replay.data;
  const denied = refused(replay.error);
  return (
    <Card title="Run it again" id="replay" wide>
      <p className="quiet">
        The hub loads the model's exact bytes and scores the recorded inputs again. Nothing is decided and nothing is
        logged.
      </p>
      <div className="actions">
        <button type="button" onClick={() => replay.mutate()} disabled={replay.isPending || denied || !modelAsked(d)}>
          {replay.isPending ? "Running…" : "Replay"}
        </button>
        <span role="status">
          {!modelAsked(d) &&
            (d.fallback_reason
              ? "The rules answered; only a model's score can be replayed."
              : "No model was asked; there is no score to replay.")}
          {denied && "Your role does not let you replay decisions."}
          {replay.error && !denied && sentence(replay.error.message)}
          {r &&
            (r.equal ? (
              <>
                <Chip tone="good">Same bit for bit</Chip> Model score {r.replayed_score} again.
              </>
            ) : (
              <>
                <Chip tone="bad">Differs</Chip> {sentence((r.differences ?? []).join("; "))}
              </>
            ))}
        </span>
      </div>
    </Card>
  );
}
