"""Prints what the installed Feast client has on the wire: messages with their fields, enumerations, methods."""

import importlib
import json

out = {"fields": {}, "enums": {}, "methods": {}}
MODULES = ["types.Value", "serving.ServingService", "serving.GrpcServer", "core.Registry", "core.Entity", "core.Feature", "core.FeatureView",
           "core.FeatureService", "core.FeatureViewProjection", "core.Project", "core.DataSource", "core.DataFormat"]


def repeated(f):
    return f.is_repeated if hasattr(f, "is_repeated") else f.label == f.LABEL_REPEATED


def message(m):
    for f in m.fields:
        out["fields"][f"{m.full_name}.{f.name}"] = [f.number, f.type, repeated(f)]
    for e in m.enum_types:
        enum(e)
    for n in m.nested_types:
        message(n)


def enum(e):
    for v in e.values:
        out["enums"][f"{e.full_name}.{v.name}"] = v.number


for name in MODULES:
    d = importlib.import_module(f"feast.protos.feast.{name}_pb2").DESCRIPTOR
    for m in d.message_types_by_name.values():
        message(m)
    for e in d.enum_types_by_name.values():
        enum(e)
    for s in d.services_by_name.values():
        for m in s.methods:
            out["methods"][f"{s.full_name}/{m.name}"] = [m.input_type.full_name, m.output_type.full_name]
print(json.dumps(out))
