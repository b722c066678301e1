"""Plays a stock Arrow Flight client against a hub: HOST:PORT TOKEN OTHER_TOKEN. Prints "ok" after the last check."""

import datetime
import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.flight as fl

address, token, other = sys.argv[1:4]
client = fl.FlightClient("grpc://" + address)


def headers(t):
    return fl.FlightCallOptions(headers=[(b"authorization", b"Bearer " + t.encode())], timeout=60)


me = headers(token)
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def table(n=3, queue=None, warehouse=None, at=None, **more):
    return pa.table({
        "warehouse": warehouse if warehouse is not None else [f"WH-{i}" for i in range(n)],
        "event_time": pa.array(at if at is not None else [NOW] * n, pa.timestamp("us", tz="UTC")),
        "queue": queue if queue is not None else [0.25] * n,
        **more,
    })


def put(descriptor, data, options=me, chunk=1000):
    writer, reader = client.do_put(descriptor, data.schema, options)
    try:
        writer.write_table(data, max_chunksize=chunk)
        writer.done_writing()
        return json.loads(reader.read().to_pybytes())
    finally:
        writer.close()


def command(**k):
    return fl.FlightDescriptor.for_command(json.dumps(k))


def fails(says, f, *a, **k):
    """Runs f, which must be refused with all of says in the message."""
    try:
        got = f(*a, **k)
    except (fl.FlightError, pa.ArrowException, OSError) as e:
        for s in says:
            assert s in str(e), f"{s!r} is not in: {e}"
        return
    raise AssertionError(f"{says} was let through: {got}")


big = table(25_000)
if len(sys.argv) == 5:
    writer, reader = client.do_put(command(view="warehouse_load", batch_id="cut"), big.schema, me)
    writer.write_table(big.slice(0, 5000), max_chunksize=1000)
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)

# A put of many batches is one commit; the same again is the same commit; other rows under its id are a conflict.
first = put(fl.FlightDescriptor.for_path("warehouse_load", "batch-1"), big)
assert first["rows"] == 25_000 and not first["duplicate"] and first["quarantined"] == 0, first
again = put(command(view="warehouse_load", batch_id="batch-1"), big, chunk=777)
assert again == {**first, "duplicate": True}, again
fails(["batch-1", "other rows"], put, fl.FlightDescriptor.for_path("warehouse_load", "batch-1"), table(3))
after = put(fl.FlightDescriptor.for_path("warehouse_load"), table(1))
assert after["sequence"] == first["sequence"] + 1 and after["batch_id"], after

# What clients make of the same rows: dictionaries, large texts, floats of 32 bits, zoned and coarser times, renamed columns.
same = pa.table({
    "wh": pa.array(["A", "B", "A"]).dictionary_encode(),
    "t": pa.array([NOW] * 3, pa.timestamp("s", tz="Europe/Berlin")),
    "queue": pa.array([0.5, None, float("nan")], pa.float32()),
})
got = put(command(view="warehouse_load@v1", batch_id="forms", columns={"wh": "warehouse", "t": "event_time"}), same)
assert got["rows"] == 3 and got["view"] == "warehouse_load@v1", got

# Bad rows: named by row and column, none of the batch written; or they wait, and the others are the commit.
future = NOW + datetime.timedelta(days=1)
bad = table(4, queue=[0.1, float("inf"), 0.3, 0.4], warehouse=["X", "Y", None, "Z"], at=[NOW, NOW, NOW, future])
fails(["row 2, queue", "infinite", "row 3, warehouse", "null", "row 4, event_time", "future"], put, command(view="warehouse_load", batch_id="bad"), bad)
held = put(command(view="warehouse_load", batch_id="bad", mode="quarantine"), bad)
assert held["rows"] == 1 and held["quarantined"] == 3 and held["sequence"] == got["sequence"] + 1, held
assert put(command(view="warehouse_load", batch_id="bad", mode="quarantine"), bad) == {**held, "duplicate": True}
none = put(command(view="warehouse_load", batch_id="none", mode="quarantine"), bad.slice(1, 2))
assert none["rows"] == 0 and none["sequence"] == 0 and none["quarantined"] == 2, none

# Schemas that do not fit.
fails(["warehouse", "missing"], put, command(view="warehouse_load"), big.drop_columns(["warehouse"]))
fails(["column nonsense", "no column of view"], put, command(view="warehouse_load"), table(1, nonsense=[1]))
fails(["row 1, queue", "text"], put, command(view="warehouse_load"), table(1, queue=["much"]))
fails(["column queue", "struct"], put, command(view="warehouse_load"), table(1, queue=[{"a": 1}]))
fails(["no rows"], put, command(view="warehouse_load"), table(0))
fails(["mode"], put, command(view="warehouse_load", mode="maybe"), table(1))
fails(["vieww"], put, command(vieww="warehouse_load"), table(1))
fails(["no view nowhere"], put, fl.FlightDescriptor.for_path("nowhere"), table(1))
fails(["larger than max"], put, command(view="warehouse_load"), table(600_000), chunk=600_000)

# Who may.
fails(["no token"], put, command(view="warehouse_load"), table(1), options=fl.FlightCallOptions(timeout=60))
fails(["token"], put, command(view="warehouse_load"), table(1), options=headers("wb_wrong"))
fails(["warehouse_load"], put, command(view="warehouse_load"), table(1), options=headers(other))

# A stream that is cut in the middle writes nothing: its client is killed, or out of time, or ends early in good order
# although it said how many rows there would be.
assert subprocess.run([sys.executable, *sys.argv, "and die"]).returncode == -signal.SIGKILL
fails(["rows", "25000", "3 came"], put, command(view="warehouse_load", rows=25_000), table(3))
short = fl.FlightCallOptions(headers=[(b"authorization", b"Bearer " + token.encode())], timeout=0.5)
w2, r2 = client.do_put(command(view="warehouse_load", batch_id="late"), big.schema, short)
w2.write_table(big.slice(0, 100))
time.sleep(1)
fails([], w2.close)

# What there is.
info = client.get_flight_info(fl.FlightDescriptor.for_path("warehouse_load"), me)
assert info.schema.field("queue").type == pa.float64() and info.schema.field("event_time").type == pa.timestamp("us", tz="UTC"), info.schema
assert info.total_records == 25_000 + 1 + 3 + 1 + 1 and not info.endpoints, info.total_records
assert client.get_schema(fl.FlightDescriptor.for_path("warehouse_load"), me).schema == info.schema
flights = list(client.list_flights(options=me))
assert len(flights) == 1, flights
(flight,) = flights
digest = flight.descriptor.path[0].decode()
ticket = flight.endpoints[0].ticket
assert ticket.ticket.decode() == digest
assert list(client.list_flights(options=headers(other))) == []

# A training set over Flight is the Parquet file, value by value.
data = client.do_get(ticket, me).read_all()
data.validate(full=True)
assert data.num_rows == flight.total_records and data.schema == flight.schema, (data.num_rows, data.schema)
fails(["64 hex"], lambda: client.do_get(fl.Ticket("nonsense"), me).read_all())
fails(["no training set"], lambda: client.do_get(fl.Ticket("ab" * 32), me).read_all())
fails([], lambda: client.do_get(ticket, headers(other)).read_all())
fails([], lambda: client.do_get(ticket, fl.FlightCallOptions(timeout=60)).read_all())
fails([], lambda: list(client.do_action(fl.Action("x", b""), me)))
print(json.dumps({"digest": digest, "rows": data.to_pylist()}, default=str))
print("ok")
