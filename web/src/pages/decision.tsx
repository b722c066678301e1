import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useParams } from "react-router";
import { api, data } from "../api/client";
import type { Decision } from "../api/types";
import { count, duration, real, short, signed, utc, value, words } from "../lib/format";
import { Card, Chip, Empty, Fact, Facts, Failure, Loading, Table, useTitle } from "../ui/basics";
import { LineageCard } from "../ui/lineage";
import { ProofCard } from "../ui/proof";
import { Waterfall } from "../ui/waterfall";

/** The waybill of one decision: all that is needed to understand it and to check it. */
export function DecisionPage() {
  const { id = "" } = useParams();
  const query = useQuery({
    queryKey: ["decision", id],
    queryFn: () => data(api.GET("/v1/decisions/{decision_id}", { params: { path: { decision_id: id } } })),
  });
  const d = query.data?.decision;
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
  return (
    <>
      <Verdict d={d} />
      <div className="grid">
        <div className="column">
          <Reasons d={d} />
        </div>
        <div className="column">
          <Approval d={d} />
          <Order d={d} />
        </div>
        <Inputs d={d} />
        <div className="column">
          <Candidates d={d} />
        </div>
        <div className="column">
          <Gates d={d} />
          <Outcomes d={d} />
        </div>
        <LineageCard decisionId={id} />
        <ProofCard decisionId={id} />
        <Again d={d} id={id} />
      </div>
    </>
  );
}

function Verdict({ d }: { d: Decision }) {
  const s = d.summary ?? {};
  return (
    <header className="verdict-head">
      <p className="quiet">
        <Link to="/decisions">Decisions</Link> / waybill <span className="mono">{s.decision_id}</span>
      </p>
      <h1>{d.sentence}</h1>
      <Facts>
        <Fact name="Decided">{utc(s.decided_at, true)}</Fact>
        <Fact name="Endpoint">
          {s.endpoint}@v{s.revision}
        </Fact>
        <Fact name="Score">{real(s.score, 4)}</Fact>
        <Fact name="Took">{real(d.latency_ms, 3)} ms</Fact>
        <Fact name="Asked by">{d.actor}</Fact>
        <Fact name="Log entry">{count(s.index)}</Fact>
      </Facts>
    </header>
  );
}

function Reasons({ d }: { d: Decision }) {
  const byRules = Boolean(d.fallback_reason);
  const fallback = (d.answer as { fallback?: { by?: string; rule?: string } } | undefined)?.fallback;
  return (
    <Card title="Why" id="why">
      {byRules ? (
        <>
          <p>
            <Chip tone="warn">Fallback</Chip> The rules answered, because {d.fallback_reason}.
          </p>
          <Facts>
            <Fact name="Rule set">{fallback?.by ?? "–"}</Fact>
            <Fact name="Rule that matched">{fallback?.rule ?? "none; the default"}</Fact>
          </Facts>
          <p className="quiet">Rules have no contributions; what they read is in the table of inputs.</p>
        </>
      ) : (
        <Waterfall base={d.base ?? 0} raw={d.raw ?? 0} score={d.summary?.score ?? 0} inputs={d.inputs ?? []} />
      )}
    </Card>
  );
}

function Approval({ d }: { d: Decision }) {
  if (d.fallback_reason) {
    return (
      <Card title="On whose approval" id="approval">
        <Empty>
          No model was in force; the endpoint's approved rule set answered. Its approval is in the lineage below.
        </Empty>
        <Facts>
          <Fact name="Policy revision">{count(d.policy_rev)}</Fact>
        </Facts>
      </Card>
    );
  }
  const inForce = d.model_state_now === "approved";
  return (
    <Card
      title="On whose approval"
      id="approval"
      aside={
        inForce ? (
          <Chip tone="good">Still in force</Chip>
        ) : (
          <Chip tone="bad">Since then {d.model_state_now || "gone"}</Chip>
        )
      }
    >
      <Facts>
        <Fact name="Model">{d.summary?.model}</Fact>
        <Fact name="Approved by">{d.approver || "–"}</Fact>
        <Fact name="On">{utc(d.approved_at)}</Fact>
        <Fact name="Because">{d.approval_reason || "–"}</Fact>
        <Fact name="Exact bytes">
          <code title={d.model_digest}>{short(d.model_digest, 20)}</code>
        </Fact>
        <Fact name="Training set">
          <code title={d.training_set}>{short(d.training_set, 20)}</code>
        </Fact>
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

function Inputs({ d }: { d: Decision }) {
  const inputs = [...(d.inputs ?? [])].sort((a, b) => Math.abs(b.contribution ?? 0) - Math.abs(a.contribution ?? 0));
  return (
    <Card title="Every input, with version and age" id="inputs" wide>
      {inputs.length === 0 ? (
        <Empty>No input was read; the decision ended before.</Empty>
      ) : (
        <Table
          label="Inputs of the decision"
          head={
            <tr>
              <th scope="col">Input</th>
              <th scope="col" className="number">
                Value
              </th>
              <th scope="col">Status</th>
              <th scope="col">Source</th>
              <th scope="col" className="number">
                Commit
              </th>
              <th scope="col">Age when used</th>
              <th scope="col">Event time</th>
              <th scope="col" className="number">
                Contribution
              </th>
            </tr>
          }
        >
          {inputs.map((i) => (
            <tr key={i.name}>
              <th scope="row">{words(i.name)}</th>
              <td className="number">{value(i.value)}</td>
              <td>
                {i.status === "PRESENT" ? (
                  <Chip tone="good">present</Chip>
                ) : (
                  <Chip tone="warn">{words(i.status).toLowerCase()}</Chip>
                )}
              </td>
              <td>{i.view || <span className="quiet">request</span>}</td>
              <td className="number">{i.view ? count(i.sequence) : "–"}</td>
              <td>{i.view && i.event_time ? duration(i.age_seconds) : "–"}</td>
              <td className="time">{i.view ? utc(i.event_time) : "–"}</td>
              <td className="number">{d.fallback_reason ? "–" : signed(i.contribution)}</td>
            </tr>
          ))}
        </Table>
      )}
    </Card>
  );
}

function Candidates({ d }: { d: Decision }) {
  const [all, setAll] = useState(false);
  const sorted = [...(d.candidates ?? [])].sort(
    (a, b) => Number(b.eligible) - Number(a.eligible) || (a.cost ?? 0) - (b.cost ?? 0),
  );
  if (sorted.length === 0) return null;
  const shown = all ? sorted : sorted.slice(0, 6);
  return (
    <Card title="What else was possible" id="candidates">
      <Table
        label="Ranked candidates"
        head={
          <tr>
            <th scope="col" className="number">
              Rank
            </th>
            <th scope="col">Candidate</th>
            <th scope="col" className="number">
              Cost
            </th>
            <th scope="col" className="number">
              Score
            </th>
            <th scope="col">Verdict</th>
          </tr>
        }
      >
        {shown.map((c, i) => (
          <tr key={c.action} className={c.action === d.summary?.action ? "chosen" : undefined}>
            <td className="number">{c.eligible ? i + 1 : "–"}</td>
            <td>{c.action}</td>
            <td className="number">{real(c.cost)}</td>
            <td className="number">{real(c.score, 3)}</td>
            <td>
              {c.action === d.summary?.action ? (
                <Chip tone="good">chosen</Chip>
              ) : c.eligible ? (
                "possible"
              ) : (
                <Chip tone="quiet">{c.blocked_by ? `blocked by ${c.blocked_by}` : "not eligible"}</Chip>
              )}
            </td>
          </tr>
        ))}
      </Table>
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
          head={
            <tr>
              <th scope="col">Gate</th>
              <th scope="col">Asked</th>
              <th scope="col">Verdict</th>
              <th scope="col">Reason</th>
            </tr>
          }
        >
          {gates.map((g) => (
            <tr key={g.gate}>
              <th scope="row">{g.gate}</th>
              <td>{g.stage} the model</td>
              <td>
                <Chip tone={g.verdict === "allow" ? "good" : g.verdict === "block" ? "bad" : "warn"}>{g.verdict}</Chip>
              </td>
              <td>{g.reason || "–"}</td>
            </tr>
          ))}
        </Table>
      )}
    </Card>
  );
}

function Outcomes({ d }: { d: Decision }) {
  const outcomes = d.outcomes ?? [];
  return (
    <Card title="What happened" id="outcomes">
      {outcomes.length === 0 ? (
        <Empty>No outcome reported yet.</Empty>
      ) : (
        <Table
          label="Reported outcomes"
          head={
            <tr>
              <th scope="col">Outcome</th>
              <th scope="col">Value</th>
              <th scope="col">Happened</th>
              <th scope="col">Reported</th>
            </tr>
          }
        >
          {outcomes.map((o) => (
            <tr key={`${o.name} ${o.reported_at}`}>
              <th scope="row">{words(o.name)}</th>
              <td>{value(o.value)}</td>
              <td className="time">{utc(o.event_time)}</td>
              <td className="time">
                {utc(o.reported_at)} by {o.actor}
              </td>
            </tr>
          ))}
        </Table>
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
  return (
    <Card title="Run it again" id="replay" wide>
      <p className="quiet">
        The hub loads the model's exact bytes and scores the recorded inputs again. Nothing is decided and nothing is
        logged.
      </p>
      <div className="actions">
        <button type="button" onClick={() => replay.mutate()} disabled={replay.isPending || Boolean(d.fallback_reason)}>
          {replay.isPending ? "Running…" : "Replay"}
        </button>
        <span role="status">
          {d.fallback_reason && "The rules answered; only a model's score can be replayed."}
          {replay.error?.message}
          {r &&
            (r.equal ? (
              <>
                <Chip tone="good">Same bit for bit</Chip> {r.replayed_score} again.
              </>
            ) : (
              <>
                <Chip tone="bad">Differs</Chip> {(r.differences ?? []).join("; ")}
              </>
            ))}
        </span>
      </div>
    </Card>
  );
}
