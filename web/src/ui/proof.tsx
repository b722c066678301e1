import { useQuery } from "@tanstack/react-query";
import { api, data } from "../api/client";
import { verifyProof } from "../lib/proof";
import { Card, Chip, Failure, Loading } from "./basics";

/** The inclusion proof of a decision, fetched from the hub and checked here, in this browser. */
export function ProofCard({ decisionId }: { decisionId: string }) {
  const proof = useQuery({
    queryKey: ["proof", decisionId],
    queryFn: async () => {
      const input = await data(
        api.GET("/v1/decisions/{decision_id}/proof", { params: { path: { decision_id: decisionId } } }),
      );
      return { input, result: await verifyProof(input, decisionId) };
    },
  });
  const result = proof.data?.result;
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
      {proof.isPending && <Loading what="and checking the proof" />}
      {proof.error && <Failure error={proof.error} what="the proof" />}
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
          {result.key && (
            <p className="quiet">
              One thing this page cannot check: that the key is your company's. Compare it with the copy you were given
              on another way: <code>{result.key}</code>
            </p>
          )}
          <details>
            <summary>The entry as it stands in the log, byte for byte</summary>
            <pre tabIndex={0}>{proof.data?.input.leaf}</pre>
          </details>
          <details>
            <summary>The proof as a file for other tools (c2sp.org/tlog-proof)</summary>
            <pre tabIndex={0}>{proof.data?.input.tlog_proof}</pre>
          </details>
        </>
      )}
      <button type="button" onClick={() => proof.refetch()} disabled={proof.isFetching}>
        {proof.isFetching ? "Checking…" : "Check again"}
      </button>
    </Card>
  );
}
