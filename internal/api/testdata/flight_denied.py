"""HOST:PORT TOKEN DIGEST: a put and a get of a caller who is banned from the view and the service are refused."""

import sys

import pyarrow as pa
import pyarrow.flight as fl

address, token, digest = sys.argv[1:4]
client = fl.FlightClient("grpc://" + address)
me = fl.FlightCallOptions(headers=[(b"authorization", b"Bearer " + token.encode())], timeout=60)
for descriptor in (fl.FlightDescriptor.for_path("warehouse_load"), fl.FlightDescriptor.for_path("warehouse_load@v1"), fl.FlightDescriptor.for_command('{"view": "warehouse_load"}')):
    try:
        writer, reader = client.do_put(descriptor, pa.schema([("warehouse", pa.string())]), me)
        writer.done_writing()
        reader.read()
        writer.close()
        raise SystemExit(f"{descriptor} was let through")
    except fl.FlightUnauthorizedError as e:
        assert "may not write view/warehouse_load" in str(e) or "warehouse_load" in str(e), e
try:
    client.do_get(fl.Ticket(digest), me).read_all()
    raise SystemExit("the get was let through")
except fl.FlightUnauthorizedError as e:
    assert "route-risk" in str(e), e
