import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { api, data } from "../api/client";
import type { Decision } from "../api/types";
import { type ProofInput, type ProofResult, verifyProof } from "../lib/proof";
import { uncovered } from "../lib/shown";
import { Card, Chip, Failure, Loading, refused } from "./basics";

/** A decision's proof and what this browser found. */
export interface Proof {
  state: "checking" | "holds" | "fails" | "missing";
  input: (ProofInput & { tlog_proof?: string }) | undefined;
  result: ProofResult | undefined;
  /** Why there is no proof to check, in state "missing". */
  error: Error | null;
  busy: boolean;
  again: () => void;
}

/**
 * Fetches the proof of a decision and checks it against what the page shows. A decision that is fetched anew and
 * differs is checked anew: until then the state is "checking", never the finding about something else.
 */
export function useProof(decisionId: string, shown: Decision | undefined): Proof {
  const query = useQuery({
    queryKey: ["proof", decisionId],
    queryFn: () =>
      data(api.GET("/v1/decisions/{decision_id}/proof", { params: { path: { decision_id: decisionId } } })),
    enabled: shown !== undefined,
  });
  const input = query.data;
  const [found, setFound] = useState<{ input: ProofInput; shown: Decision; result: ProofResult }>();
  useEffect(() => {
    if (!input || !shown) return;
    let current = true;
    verifyProof(input, decisionId, shown).then((result) => {
      if (current) setFound({ input, shown, result });
    });
    return () => {
      current = false;
    };
  }, [input, shown, decisionId]);
  const result = found && found.input === input && found.shown === shown ? found.result : undefined;
  const error = input ? null : query.error;
  return {
    state: error ? "missing" : !result ? "checking" : result.ok ? "holds" : "fails",
    input,
    result,
    error,
    busy: query.isFetching,
    again: () => void query.refetch(),
  };
}

/** The finding in a word, beside the title of the page. */
export function ProofChip({ proof }: { proof: Proof }) {
  return (
    <span role="status">
      {proof.state === "holds" && <Chip tone="good">Verified</Chip>}
      {proof.state === "checking" && <Chip tone="quiet">Checking the proof…</Chip>}
      {proof.state === "fails" && <Chip tone="bad">Proof DOES NOT HOLD</Chip>}
      {proof.state === "missing" && <Chip tone="warn">Not verified</Chip>}
    </span>
  );
}

/** Above everything else when the proof fails: nothing below it can be relied on. */
export function ProofAlert({ proof }: { proof: Proof }) {
  if (proof.state !== "fails") return null;
  const failed = proof.result?.steps.find((s) => s.ok === false);
  return (
    <div className="alarm" role="alert">
      <strong>The proof of this decision does not hold. Do not rely on what this page shows.</strong>
      <p>
        Failed step: {failed?.title}. {failed?.detail}
      </p>
      <p>
        The log, the record or the hub's answer was changed. Keep this page as it is and tell whoever answers for the
        hub.{" "}
        <a className="alarm-link" href="#proof">
          All steps
        </a>
      </p>
    </div>
  );
}

/** The inclusion proof of a decision step by step, as this browser checked it. */
export function ProofCard({ proof }: { proof: Proof }) {
  const { input, result } = proof;
  return (
    <Card
      title="Proof"
      id="proof"
      wide
      aside={
        result &&
        (result.ok ? <Chip tone="good">Verified in this browser</Chip> : <Chip tone="bad">Does not hold</Chip>)
      }
    >
      {proof.state === "checking" && <Loading what="and checking the proof" />}
      {proof.error && <Failure error={proof.error} what="the proof of this decision" />}
      {result && (
        <>
          <ol className="steps">
            {result.steps.map((s) => (
              <li key={s.id} className={s.ok === undefined ? "unknown" : s.ok ? "good" : "bad"} data-step={s.id}>
                <strong>{s.title}</strong>{" "}
                <span className="verdict">{s.ok === undefined ? "not checked" : s.ok ? "holds" : "fails"}</span>
                <br />
                <span className="quiet mono">{s.detail}</span>
              </li>
            ))}
          </ol>
          {result.leaf && <p className="quiet">{uncovered(result.leaf)}</p>}
          {result.key && (
            <p className="quiet">
              One thing this page cannot check: that the key is your company's. Compare it with the copy you were given
              on another way: <code>{result.key}</code>
            </p>
          )}
          <details>
            <summary>The entry as it stands in the log, byte for byte</summary>
            <pre tabIndex={0}>{input?.leaf}</pre>
          </details>
          <details>
            <summary>The record that the entry names, byte for byte</summary>
            <pre tabIndex={0}>{input?.payload || "The hub sent none."}</pre>
          </details>
          <details>
            <summary>The proof as a file for other tools (c2sp.org/tlog-proof)</summary>
            <pre tabIndex={0}>{input?.tlog_proof}</pre>
          </details>
        </>
      )}
      {!refused(proof.error) && (
        <button type="button" onClick={proof.again} disabled={proof.busy}>
          {proof.busy ? "Checking…" : "Check again"}
        </button>
      )}
    </Card>
  );
}
