import { useInfiniteQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { Link, useSearchParams } from "react-router";
import { api, data } from "../api/client";
import type { DecisionSummary, Search } from "../api/types";
import { instant, plural, real, utc } from "../lib/format";
import { blockedAction } from "../lib/shown";
import { Chip, Empty, Failure, Loading, Table, useTitle } from "../ui/basics";

const fields = [
  { name: "business_key", label: "Order", hint: "e.g. ORD-123" },
  { name: "endpoint", label: "Endpoint", hint: "e.g. route" },
  { name: "model", label: "Model", hint: "name or name@v1" },
  { name: "action", label: "Action", hint: "exactly as decided" },
  { name: "gate", label: "Gate", hint: "that stopped or changed it" },
] as const;

/** Search over all decisions; the address holds the question, so that it can be kept and sent. */
export function DecisionsPage() {
  useTitle("Decisions");
  const [params, setParams] = useSearchParams();
  const query: Search = { page_size: 50 };
  for (const { name } of fields) {
    const text = params.get(name)?.trim();
    if (text) query[name] = text;
  }
  if (params.get("fallback_only") === "true") query.fallback_only = true;
  const unread: string[] = [];
  for (const name of ["from", "to"] as const) {
    const at = instant(params.get(name));
    if (at) query[name] = at;
    else if (params.get(name)) unread.push(name);
  }

  const search = useInfiniteQuery({
    queryKey: ["decisions", query],
    queryFn: ({ pageParam }) =>
      data(api.GET("/v1/decisions", { params: { query: pageParam ? { ...query, page_token: pageParam } : query } })),
    initialPageParam: "",
    getNextPageParam: (last) => last.next_page_token || undefined,
  });
  const rows = search.data?.pages.flatMap((p) => p.decisions ?? []) ?? [];
  return (
    <>
      <h1>Decisions</h1>
      <SearchForm key={params.toString()} params={params} onSearch={setParams} />
      {unread.length > 0 && (
        <p className="state warn" role="alert">
          The address gives {unread.map((name) => `“${params.get(name)}” as “${name}”`).join(" and ")}, which is no time
          such as 2026-04-10T18:00; the search leaves it out.
        </p>
      )}
      {search.isPending && <Loading what="decisions" />}
      {search.error && <Failure error={search.error} what="decisions" />}
      {search.data && rows.length === 0 && (
        <Empty>No decision matches. All fields you fill in must hold together; leave some empty to find more.</Empty>
      )}
      {rows.length > 0 && (
        <section className="card wide" aria-label="Results">
          <p className="quiet" role="status">
            {plural(rows.length, "decision")}
            {search.hasNextPage ? " so far" : ""}, newest first. A score is the model's, or the rules' where they
            answered; the endpoint says what it means.
          </p>
          <DecisionTable rows={rows} label="Decisions found" />
          {search.hasNextPage && (
            <button type="button" onClick={() => search.fetchNextPage()} disabled={search.isFetchingNextPage}>
              {search.isFetchingNextPage ? "Loading…" : "Show more"}
            </button>
          )}
        </section>
      )}
    </>
  );
}

/** What a time in the address looks like in its field of the form: UTC without a zone; "" for what is no time. */
const local = (text: string | null) => instant(text)?.slice(0, 19) ?? "";

function SearchForm({ params, onSearch }: { params: URLSearchParams; onSearch: (p: Record<string, string>) => void }) {
  const [rules, setRules] = useState(params.get("fallback_only") === "true");
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const next: Record<string, string> = {};
    for (const [name, text] of new FormData(event.currentTarget)) {
      if (typeof text === "string" && text.trim()) next[name] = text.trim();
    }
    if (rules) next.fallback_only = "true";
    onSearch(next);
  };
  return (
    <form className="search card wide" onSubmit={submit} aria-label="Search decisions">
      {fields.map((f) => (
        <label key={f.name}>
          {f.label}
          <input name={f.name} placeholder={f.hint} defaultValue={params.get(f.name) ?? ""} autoComplete="off" />
        </label>
      ))}
      <label>
        From (UTC)
        <input name="from" type="datetime-local" step="1" defaultValue={local(params.get("from"))} />
      </label>
      <label>
        To (UTC)
        <input name="to" type="datetime-local" step="1" defaultValue={local(params.get("to"))} />
      </label>
      <label className="check">
        <input type="checkbox" checked={rules} onChange={(e) => setRules(e.target.checked)} />
        Answered by the rules only
      </label>
      <div className="actions">
        <button type="submit">Search</button>
        <Link to="/decisions">Clear</Link>
      </div>
    </form>
  );
}

/** Whether a gate stopped it: then there is no score and nobody decided. */
const isBlocked = (d: DecisionSummary) => d.action === blockedAction && (d.gates ?? []).length > 0;

/** Decisions as rows, each leading to its waybill. */
export function DecisionTable({ rows, label }: { rows: readonly DecisionSummary[]; label: string }) {
  return (
    <Table
      label={label}
      room="some"
      rows={rows}
      keyOf={(d) => d.decision_id ?? ""}
      columns={[
        {
          head: "Order",
          name: true,
          cell: (d) => <Link to={`/decisions/${d.decision_id}`}>{d.business_key || d.decision_id}</Link>,
        },
        {
          head: "Action",
          cell: (d) => (isBlocked(d) ? <Chip tone="bad">blocked</Chip> : d.action || "nothing possible"),
        },
        {
          head: "Decided by",
          cell: (d) =>
            isBlocked(d) ? `gate ${d.gates?.join(", ")}` : d.fallback ? <Chip tone="warn">rules</Chip> : d.model,
        },
        {
          head: "Score",
          number: true,
          share: 4,
          cell: (d) => (isBlocked(d) ? undefined : real(d.score, 3)),
        },
        { head: "Endpoint", share: 4, cell: (d) => `${d.endpoint}@v${d.revision}` },
        { head: "Decided at", share: 4, cell: (d) => <span className="time">{utc(d.decided_at)}</span> },
      ]}
    />
  );
}
