import { useMutation, useQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import { api, data } from "../api/client";
import { ago, count, percent, plural, real, sentence, short, utc, words } from "../lib/format";
import { Activity } from "../ui/activity";
import { Card, Chip, Empty, Fact, Facts, Failure, Loading, refused, Table, useTitle } from "../ui/basics";
import { DecisionTable } from "./decisions";

const minutes = 60;
const live = { refetchInterval: 5_000 };

/** What needs somebody, how the traffic goes, whether the log is whole. */
export function HomePage() {
  useTitle("Home");
  return (
    <>
      <h1>Home</h1>
      <div className="grid">
        <div className="column">
          <Attention />
          <Endpoints />
        </div>
        <div className="column">
          <Traffic />
          <LogHealth />
        </div>
        <Recent />
      </div>
    </>
  );
}

function Attention() {
  const incidents = useQuery({
    queryKey: ["incidents", "open"],
    queryFn: () => data(api.GET("/v1/incidents", { params: { query: { state: "open", page_size: 20 } } })),
    ...live,
  });
  const versions = useQuery({
    queryKey: ["model-versions"],
    queryFn: () => data(api.GET("/v1/model-versions", { params: { query: { page_size: 100 } } })),
    ...live,
  });
  const open = incidents.data?.incidents ?? [];
  const waiting = (versions.data?.versions ?? []).filter((v) => v.state === "submitted");
  const loaded = incidents.data && versions.data;
  return (
    <Card title="Needs somebody" id="attention">
      {(incidents.isPending || versions.isPending) && <Loading what="incidents and approvals" />}
      {incidents.error && <Failure error={incidents.error} what="incidents" />}
      {versions.error && <Failure error={versions.error} what="model versions" />}
      {loaded && open.length + waiting.length === 0 && (
        <Empty>Nothing: no open incident, no model waits for approval.</Empty>
      )}
      <ul className="list">
        {open.map((i) => (
          <li key={i.incident_id}>
            <Chip tone="bad">Incident</Chip> {i.title}
            <p className="quiet">
              Opened {ago(i.opened_at, Date.now())} by monitor {i.monitor}; reaches{" "}
              {plural(i.affected?.length, "version")}.
            </p>
          </li>
        ))}
        {waiting.map((v) => (
          <li key={`${v.model}@${v.version}`}>
            <Chip tone="warn">Approval</Chip> {v.model}@v{v.version} by {v.author}
            <p className="quiet">{v.needs}</p>
          </li>
        ))}
      </ul>
    </Card>
  );
}

function Traffic() {
  const activity = useQuery({
    queryKey: ["activity"],
    queryFn: () => data(api.GET("/v1/activity", { params: { query: { minutes } } })),
    ...live,
  });
  const decisions = Number(activity.data?.decisions ?? 0);
  const fallbacks = Number(activity.data?.fallbacks ?? 0);
  return (
    <Card title="Traffic" id="traffic">
      {activity.isPending && <Loading what="the traffic" />}
      {activity.error && <Failure error={activity.error} what="the traffic" />}
      {activity.data && (
        <>
          <Facts>
            <Fact name="Decisions, last hour">
              <span className="big">{count(decisions)}</span>
            </Fact>
            <Fact name="Answered by the rules">
              <span className="big">{percent(fallbacks, decisions)}</span>
            </Fact>
          </Facts>
          <Activity buckets={activity.data.buckets ?? []} minutes={minutes} now={activity.dataUpdatedAt} />
        </>
      )}
    </Card>
  );
}

function Endpoints() {
  const endpoints = useQuery({ queryKey: ["endpoints"], queryFn: () => data(api.GET("/v1/endpoints")), ...live });
  const monitors = useQuery({ queryKey: ["monitors"], queryFn: () => data(api.GET("/v1/monitors")) });
  const list = endpoints.data?.endpoints ?? [];
  return (
    <Card title="Who answers now" id="endpoints">
      {endpoints.isPending && <Loading what="endpoints" />}
      {endpoints.error && <Failure error={endpoints.error} what="endpoints" />}
      {endpoints.data && list.length === 0 && (
        <Empty>
          No endpoint yet. <code>waybill endpoint publish -f endpoint.yaml --reason "first revision"</code> publishes
          one.
        </Empty>
      )}
      <ul className="list">
        {list.map((e) => (
          <li key={e.name}>
            <Link to={`/decisions?endpoint=${encodeURIComponent(e.name ?? "")}`}>
              {e.name}@v{e.revision}
            </Link>{" "}
            {e.model_state === "approved" ? (
              <Chip tone="good">model in force</Chip>
            ) : (
              <Chip tone="warn">rules answer</Chip>
            )}
            <p className="quiet">
              {e.serving}. Published by {e.author} {ago(e.published_at, Date.now())}
              {e.reason && `: ${e.reason}`}.
            </p>
          </li>
        ))}
      </ul>
      {(monitors.data?.monitors ?? []).length > 0 && (
        <Table
          label="Drift monitors"
          room="little"
          rows={monitors.data?.monitors ?? []}
          keyOf={(m) => m.name ?? ""}
          columns={[
            { head: "Drift monitor", name: true, cell: (m) => m.name },
            {
              head: "Watches",
              cell: (m) => `${m.feature === "*" ? "every input" : words(m.feature)} at ${m.endpoint}`,
            },
            { head: "Limit", number: true, cell: (m) => `${m.statistic?.toUpperCase()} ${real(m.limit)}` },
          ]}
        />
      )}
    </Card>
  );
}

function LogHealth() {
  const log = useQuery({ queryKey: ["log"], queryFn: () => data(api.GET("/v1/log")), ...live });
  const verify = useMutation({ mutationFn: () => data(api.POST("/v1/log:verify", { body: {} })) });
  // Whoever may not read the log may not verify it either, and is not offered it.
  const noLog = refused(log.error);
  const noVerify = refused(verify.error);
  return (
    <Card
      title="Decision log"
      id="log"
      aside={
        verify.data &&
        (verify.data.ok ? (
          <Chip tone="good">Whole</Chip>
        ) : (
          <Chip tone="bad">Entry {verify.data.first_bad_index} is bad</Chip>
        ))
      }
    >
      {log.isPending && <Loading what="the log" />}
      {log.error && <Failure error={log.error} what="the log" />}
      {log.data && (
        <Facts>
          <Fact name="Entries">
            <span className="big">{count(log.data.size)}</span>
          </Fact>
          <Fact name="Last checkpoint">{utc(log.data.published_at)}</Fact>
          <Fact name="Root">
            <code title={log.data.root}>{short(log.data.root, 16)}</code>
          </Fact>
          <Fact name="Origin">
            <code>{log.data.origin}</code>
          </Fact>
        </Facts>
      )}
      {!noLog && (
        <div className="actions">
          <button type="button" onClick={() => verify.mutate()} disabled={verify.isPending || noVerify || !log.data}>
            {verify.isPending ? "Hashing every entry…" : "Verify the whole log now"}
          </button>
          <span role="status">
            {verify.data &&
              `${sentence(verify.data.finding || `${count(verify.data.entries)} entries checked`)} It took ${real(verify.data.seconds, 2)} s.`}
            {noVerify && "Your role does not let you verify the log."}
            {verify.error && !noVerify && sentence(verify.error.message)}
          </span>
        </div>
      )}
    </Card>
  );
}

function Recent() {
  const recent = useQuery({
    queryKey: ["decisions", "recent"],
    queryFn: () => data(api.GET("/v1/decisions", { params: { query: { page_size: 8 } } })),
    ...live,
  });
  return (
    <Card title="Last decisions" id="recent" wide aside={<Link to="/decisions">Search all</Link>}>
      {recent.isPending && <Loading what="decisions" />}
      {recent.error && <Failure error={recent.error} what="decisions" />}
      {recent.data &&
        (recent.data.decisions?.length ? (
          <DecisionTable rows={recent.data.decisions} label="The newest decisions" />
        ) : (
          <Empty>No decision yet. The first one asked of an endpoint appears here within seconds.</Empty>
        ))}
    </Card>
  );
}
