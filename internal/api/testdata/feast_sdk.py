"""What a stock Feast client does against the hub, asserted by the client's own objects.

Runs unchanged under both versions that are tested. What the old one cannot do is asserted as it is, with the reason.
Prints "N checks" at the end; the Go test that runs it counts them, so that nothing passes by not being run.
"""

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import feast
import pandas as pd
import requests
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.errors import (
    FeastError,
    FeastPermissionError,
    FeatureServiceNotFoundException,
    FeatureViewNotFoundException,
)
from feast.types import Float64, Int64

URL, TOKEN, TENANT = (os.environ[k] for k in ("WAYBILL_URL", "WAYBILL_TOKEN", "WAYBILL_TENANT"))
ROOT = Path(os.environ["WAYBILL_TEST_DIR"])
NEW = tuple(int(n) for n in feast.__version__.split(".")[:2]) >= (0, 64)
checks, wrong = 0, []


def check(got, want, what):
    """Counts; what differs is said at the end, all of it."""
    global checks
    checks += 1
    if got != want:
        wrong.append(f"line {sys._getframe(1).f_lineno}: {what}: {got!r}, not {want!r}")


def near(got, want, what):
    check(abs(got - want) < 1e-6, True, f"{what} ({got})")


def repo(name, registry, auth=True):
    """A folder with a feature_store.yaml, as a user writes it."""
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    if not auth:
        how = "{type: no_auth}"
    elif NEW:  # a bearer token of one's own, as it is
        how = "{type: oidc, token_env_var: WAYBILL_TOKEN}"
    else:  # 0.50 knows tokens of Kubernetes only; this is where it looks for one outside of a pod
        os.environ["LOCAL_K8S_TOKEN"] = TOKEN
        how = "{type: kubernetes}"
    (folder / "feature_store.yaml").write_text(
        f"""project: {TENANT}
provider: local
registry: {registry}
online_store: {{type: remote, path: {URL}/feast}}
entity_key_serialization_version: 3
auth: {how}
"""
    )
    return folder


def fails(kind, words, what, call):
    """call must raise exactly this kind, and its text must hold all words: that is what a user sees."""
    try:
        call()
    except Exception as e:
        check(type(e), kind, f"{what}: {e}")
        for word in words:
            check(word in str(e), True, f"{what}: {word!r} in {e}")
        return
    check("no error", kind.__name__, what)


def post(path, body, token=TOKEN):
    return requests.post(f"{URL}/feast{path}", json=body, headers={"Authorization": f"Bearer {token}"})


def statuses(response, name):
    at = list(response.proto.metadata.feature_names.val).index(name)
    return list(response.proto.results[at].statuses)


PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 2, 3, 4

# The registry, as the hub serves it. Older clients resolve all names in it by themselves.
raw = requests.get(f"{URL}/feast/registry.db", headers={"Authorization": f"Bearer {TOKEN}"})
check(raw.status_code, 200, "registry.db")
(ROOT / "registry.db").write_bytes(raw.content)
store = FeatureStore(repo_path=str(repo("served", ROOT / "registry.db")))
check(sorted(v.name for v in store.list_feature_views()), ["drivers", "drivers.v1", "empty", "lanes", "warehouse_load"], "views in the registry")
check(sorted(e.name for e in store.list_entities()), ["driver_id", "lane", "warehouse"], "entities in the registry")
check(store.get_entity("lane").value_type, ValueType.INT64, "type of a join key")
check(sorted(s.name for s in store.list_feature_services()), ["dispatch", "route-risk"], "services in the registry")
lanes = store.get_feature_view("lanes")
check(lanes.ttl, timedelta(hours=1), "ttl in the registry")
check({f.name: str(f.dtype) for f in lanes.features}["hours"], "Array(Float64)", "type of a list in the registry")
check([f.name for p in store.get_feature_service("dispatch").feature_view_projections for f in p.features],
      ["queue", "share", "conv_rate"], "features of the service in the registry")

# One entity, several features, and the types in which they arrive.
got = store.get_online_features(
    features=["drivers:conv_rate", "drivers:trips"], entity_rows=[{"driver_id": 1001}, {"driver_id": 1002}, {"driver_id": 9}]
)
check(got.to_dict(), {"driver_id": [1001, 1002, 9], "conv_rate": [0.5, 1.0, None], "trips": [308, None, None]}, "values")
if NEW:
    check(statuses(got, "conv_rate"), [PRESENT, PRESENT, NOT_FOUND], "statuses: an entity that is not known")
    check(statuses(got, "trips"), [PRESENT, NULL_VALUE, NOT_FOUND], "statuses: a null")
else:  # clients before 0.64 call all of it PRESENT: the hub's statuses are read and dropped
    check(statuses(got, "trips"), [PRESENT, PRESENT, PRESENT], "statuses, as 0.50 gives them")
check(type(got.to_dict()["conv_rate"][1]), float, "1.0 stays a float")
check(got.to_df().shape, (3, 3), "as a data frame")

# A hundred entities in one request, in order.
many = store.get_online_features(features=["drivers:trips"], entity_rows=[{"driver_id": 2000 + i} for i in range(100)])
check(many.to_dict()["trips"], list(range(100)), "100 entities")

# Composite keys.
rows = [{"warehouse": "WH-1", "lane": 1}, {"warehouse": "WH-1", "lane": 2}, {"warehouse": "WH-2", "lane": 1}, {"warehouse": "WH-3", "lane": 1}]
ask = ["queue", "load", "share", "carrier", "open", "cutoff", "holidays", "codes", "hours", "place", "price", "seal"]
if NEW:
    got = store.get_online_features(features=[f"lanes:{n}" for n in ask], entity_rows=rows)
    d = got.to_dict()
    check(d["queue"], [4, 2**53 + 1, None, None], "composite keys, and an integer beyond 2^53")
    check(statuses(got, "queue"), [PRESENT, PRESENT, OUTSIDE_MAX_AGE, NOT_FOUND], "statuses: a row that is too old")
    check(d["load"], [0.25, None, None, None], "a null beside values")
    check(statuses(got, "load"), [PRESENT, NULL_VALUE, OUTSIDE_MAX_AGE, NOT_FOUND], "statuses: null, old, unknown")
    near(d["share"][0], 0.1, "float32")
    check(d["carrier"], ['Überländ "7"\n', None, None, None], "text")
    check(d["open"], [True, None, None, None], "truth value")
    check(d["cutoff"], [1776103200, None, None, None], "a timestamp is seconds since 1970")
    check(d["holidays"], [[1776103200, 1776189600], None, None, None], "a list of timestamps")
    check(d["codes"], [["a", "b"], None, None, None], "a list of texts; an empty one is null")
    check(statuses(got, "codes"), [PRESENT, NULL_VALUE, OUTSIDE_MAX_AGE, NOT_FOUND], "statuses: an empty list")
    check(d["hours"], [[0.5, 1.0], None, None, None], "a list of floats, one of them whole")
    check(d["place"], [[0.25, -1.0, 3.0], None, None, None], "a vector")
    check(d["price"], ["12.5", None, None, None], "a decimal is text")
    check(d["seal"], ["AP8=", None, None, None], "bytes are base64")
else:  # clients before 0.64 send the first join key only; the hub refuses to guess the rest
    fails(FeastError, ["entities.lane", "is missing", "before 0.64"], "composite keys",
          lambda: store.get_online_features(features=[f"lanes:{n}" for n in ask], entity_rows=rows))

# Full names, and two views with a feature of the same name.
if NEW:
    full = store.get_online_features(features=["drivers:load", "lanes:load"], entity_rows=[{"driver_id": 1001, "warehouse": "WH-1", "lane": 1}], full_feature_names=True)
    check(full.to_dict(), {"driver_id": [1001], "warehouse": ["WH-1"], "lane": [1], "drivers__load": [7.0], "lanes__load": [0.25]}, "full names")
    pinned = store.get_online_features(features=["drivers@v1:load"], entity_rows=[{"driver_id": 1001}], full_feature_names=True)
    check(pinned.to_dict()["drivers@v1__load"], [6.0], "a version of a view")
    fails(feast.errors.FeatureNameCollisionError, ["features[1]", "full_feature_names"], "a collision of names",
          lambda: store.get_online_features(features=["drivers:load", "lanes:load"], entity_rows=[{"driver_id": 1001, "warehouse": "WH-1", "lane": 1}]))
else:  # asked for by bare names, renamed by the client
    full = store.get_online_features(features=["drivers:load"], entity_rows=[{"driver_id": 1001}], full_feature_names=True)
    check(full.to_dict(), {"driver_id": [1001], "drivers__load": [7.0]}, "full names")

# A service: its name goes over the wire, and the hub evaluates its expression.
service = store.get_feature_service("dispatch")
row = {"warehouse": "WH-1", "lane": 1, "driver_id": 1001, "km": 2.0}
if NEW:
    got = store.get_online_features(features=service, entity_rows=[row]).to_dict()
    check((got["queue"], got["conv_rate"], got["effort"]), ([4], [0.5], [10.0]), "a service with an expression")
else:  # expanded by the client into its features, composite keys and all, and expressions are unknown to it
    fails(FeastError, ["entities.lane", "is missing"], "a service", lambda: store.get_online_features(features=service, entity_rows=[row]))

# A version that is not the latest: "drivers.v1" is how the registry names it.
old = store.get_online_features(features=["drivers.v1:load"], entity_rows=[{"driver_id": 1001}])
check(old.to_dict()["load"], [6.0], "the version a service reads, by the registry's name")

# Errors are the hub's words in Feast's exceptions.
if NEW:  # older clients find out from their registry, before they ask
    fails(FeatureViewNotFoundException, ["there is no view ghosts"], "a view that is not there",
          lambda: store.get_online_features(features=["ghosts:load"], entity_rows=[{"driver_id": 1}]))
    fails(FeastError, ["drivers@v2", "has no feature ghost"], "a feature that is not there",
          lambda: store.get_online_features(features=["drivers:ghost"], entity_rows=[{"driver_id": 1}]))
    fails(FeastError, ["entities.driver", "takes driver_id"], "an entity that is none",
          lambda: store.get_online_features(features=["drivers:load"], entity_rows=[{"driver": 1}]))
    fails(FeastError, ["entities.driver_id[1]", "int64"], "a key of another type",
          lambda: store.get_online_features(features=["drivers:load"], entity_rows=[{"driver_id": 1001}, {"driver_id": "x"}]))
    fails(FeastError, ["entities.driver_id[0]", "is missing"], "a key that is null",
          lambda: store.get_online_features(features=["drivers:load"], entity_rows=[{"driver_id": None}]))
    fails(FeastError, ["entities.driver_id", "more than 1000 rows"], "too many rows",
          lambda: store.get_online_features(features=["drivers:load"], entity_rows=[{"driver_id": i} for i in range(1001)]))
    fails(FeastError, ["the body", "at most 1048576"], "a million rows",
          lambda: store.get_online_features(features=["drivers:load"], entity_rows={"driver_id": [7] * 1_000_000}))
stranger = FeatureStore(repo_path=str(repo("stranger", ROOT / "registry.db", auth=False)))
begin = time.monotonic()
fails(FeastPermissionError, ["no token", "Bearer"], "no token",
      lambda: stranger.get_online_features(features=["drivers:load"], entity_rows=[{"driver_id": 1001}]))
check(time.monotonic() - begin < 2, True, "errors of users are not retried")
r = post("/get-online-features", {"feature_service": "ghost", "entities": {"driver_id": [1]}})
check((r.status_code, json.loads(r.json())["class"]), (404, "FeatureServiceNotFoundException"), "a service that is not there")
check(json.loads(r.json())["message"], "there is no service ghost@latest", "its words")

# push: no client class has it for remote stores; people call it.
now = datetime.now(timezone.utc).replace(microsecond=0)
df = {"driver_id": [3001, 3001], "conv_rate": [0.25, 0.75], "trips": [5, None], "load": [1, 2],
      "event_timestamp": [now.isoformat()] * 2, "created": [(now + timedelta(seconds=1)).isoformat(), now.isoformat()]}
r = post("/push", {"push_source_name": "drivers", "df": df, "to": "online_and_offline"})
check((r.status_code, r.text), (200, ""), "push")
commit = r.headers["Waybill-Commit"]
check(post("/push", {"push_source_name": "drivers", "df": df, "to": "online"}).headers["Waybill-Commit"], commit, "the same push again is the same commit")
got = store.get_online_features(features=["drivers:conv_rate", "drivers:trips"], entity_rows=[{"driver_id": 3001}]).to_dict()
check((got["conv_rate"], got["trips"]), ([0.25], [5]), "of rows tied in time, the one created last wins")
r = post("/push", {"push_source_name": "ghosts", "df": df})
check((r.status_code, json.loads(r.json())["class"]), (422, "PushSourceNotFoundException"), "a push source that is not there")
r = post("/push", {"push_source_name": "drivers", "df": df, "to": "offline"})
check((r.status_code, "online_and_offline" in r.text), (400, True), "only offline")
r = post("/push", {"push_source_name": "drivers", "df": {**df, "trips": ["many", 1]}})
check((r.status_code, "df.trips[0]" in r.text and "int64" in r.text), (400, True), "a value of another type")
r = post("/push", {"push_source_name": "drivers", "df": {k: v for k, v in df.items() if k != "load"}})
check((r.status_code, "df.load" in r.text), (400, True), "a column that is missing")

# The client's own push: the view is a push source in the registry, and the remote store writes.
frame = pd.DataFrame({"driver_id": [3002], "conv_rate": [0.125], "trips": [8], "load": [3.0], "event_timestamp": [now], "created": [now]})
store.push("drivers", frame)
check(store.get_online_features(features=["drivers:conv_rate"], entity_rows=[{"driver_id": 3002}]).to_dict()["conv_rate"], [0.125], "store.push")
frame = frame.assign(driver_id=3003, conv_rate=0.375)
store.write_to_online_store("drivers", frame)
check(store.get_online_features(features=["drivers:conv_rate"], entity_rows=[{"driver_id": 3003}]).to_dict()["conv_rate"], [0.375], "store.write_to_online_store")
if NEW:  # a time among the features, written by the client; before 0.66 it cannot be serialised
    r = post("/write-to-online-store", {"feature_view_name": "lanes", "df": {
        "warehouse": ["WH-9"], "lane": [9], "queue": [1], "load": [1], "share": [1], "carrier": [None], "open": [False], "cutoff": [1776103200],
        "holidays": [[1776103200]], "codes": [["x"]], "hours": [[1, 2.5]], "place": [[1, 2, 3]], "price": ["7.25"], "seal": ["AP8="],
        "event_timestamp": [now.replace(tzinfo=None).isoformat()], "created": [None]}, "allow_registry_cache": False})
    check((r.status_code, r.text), (200, "null"), "write-to-online-store")
    got = store.get_online_features(features=[f"lanes:{n}" for n in ask], entity_rows=[{"warehouse": "WH-9", "lane": 9}]).to_dict()
    check((got["cutoff"], got["holidays"], got["hours"], got["price"]), ([1776103200], [[1776103200]], [[1.0, 2.5]], ["7.25"]), "what was written")

# feast materialize, the command: from a Parquet file of the user's own into the hub.
folder = repo("materialize", ROOT / "materialize" / "registry.db")
hour = now - timedelta(hours=1)
pd.DataFrame({
    "driver_id": [4000 + i for i in range(250)] + [4000],
    "conv_rate": [i / 1000 for i in range(250)] + [0.9],
    "trips": list(range(250)) + [77],
    "load": [float(i) for i in range(250)] + [0.0],
    "event_timestamp": [hour] * 250 + [hour + timedelta(minutes=5)],
    "created": [hour] * 251,
}).to_parquet(folder / "drivers.parquet")
driver = Entity(name="driver_id", join_keys=["driver_id"], value_type=ValueType.INT64)
source = FileSource(name="file", path=str(folder / "drivers.parquet"), timestamp_field="event_timestamp", created_timestamp_column="created")
view = FeatureView(name="drivers", entities=[driver], ttl=timedelta(0), source=source,
                   schema=[Field(name="driver_id", dtype=Int64), Field(name="conv_rate", dtype=Float64), Field(name="trips", dtype=Int64), Field(name="load", dtype=Float64)])
own = FeatureStore(repo_path=str(folder))
own.apply([driver, source, view])
cli = Path(sys.executable).parent / "feast"
form = "%Y-%m-%dT%H:%M:%S"
said = subprocess.run([cli, "-c", folder, "materialize", (now - timedelta(days=1)).strftime(form), (now + timedelta(minutes=1)).strftime(form)],
                      capture_output=True, text=True)
check(said.returncode, 0, f"feast materialize: {said.stdout}{said.stderr}")
rows = [{"driver_id": 4000 + i} for i in range(250)]
if NEW:  # with a remote store 0.66 reads no file: it asks the server to materialize, which has no access to it
    check(own.get_online_features(features=["drivers:trips"], entity_rows=rows[:2]).to_dict()["trips"], [None, None], "feast materialize, as 0.66 does it")
    try:
        own.materialize(now - timedelta(days=1), now, feature_views=["empty"])
        check("no error", "an error", "materialize a view without rows")
    except (FeastError, RuntimeError) as e:  # which of the two depends on what the client's session was used for before
        check("has no rows" in str(e) and "write_to_online_store" in str(e), True, f"materialize a view without rows: {e}")
    # What "feast materialize" did before, by its parts: the client reads its file and writes batches to the store.
    own._get_provider().materialize_single_feature_view(
        config=own.config, feature_view=own.get_feature_view("drivers"), start_date=now - timedelta(days=1), end_date=now,
        registry=own.registry, project=TENANT, tqdm_builder=lambda n: __import__("tqdm").tqdm(total=n, disable=True))
got = own.get_online_features(features=["drivers:trips", "drivers:conv_rate"], entity_rows=rows).to_dict()
check(got["trips"], [77] + list(range(1, 250)), "what was materialized")
check(got["conv_rate"][:2], [0.9, 0.001], "the latest row of each key")

# materialize on the server: rows follow the log, so it waits and has nothing else to do.
span = {"start_ts": "2026-01-01T00:00:00", "end_ts": "2026-12-01T00:00:00"}
check(post("/materialize", span).text, "null", "materialize")
check(post("/materialize-incremental", {"end_ts": "2026-12-01T00:00:00", "feature_views": ["drivers"]}).text, "null", "materialize-incremental")
r = post("/materialize?async=true", {**span, "feature_views": ["drivers"]})
check((r.status_code, r.json()), (202, {"status": "accepted", "feature_views": ["drivers"]}), "materialize, not waited for")
check(post("/materialize", {"start_ts": "yesterday", "end_ts": "2026-12-01"}).status_code, 400, "times that are none")
check(post("/materialize", {**span, "feature_views": ["ghosts"]}).status_code, 404, "materialize what is not there")
check(post("/search", {"features": ["lanes:place"], "query": [0.1], "top_k": 5}).status_code, 501, "search")
check(requests.get(f"{URL}/feast/health").status_code, 200, "health")

for w in wrong:
    print(w)
print(f"{checks} checks")
sys.exit(len(wrong) > 0)
