"""Makes the fixtures of package score with the real libraries.

    python -m venv venv && venv/bin/pip install lightgbm==4.5.0 xgboost==2.1.4 numpy==1.26.4 pandas==2.2.3
    venv/bin/python score/testdata/make_fixtures.py

Each model is written as its library writes it; expected.json holds inputs (null = missing), predictions, raw scores
and contributions (the last one of a row is the base).
"""
import json
import os

import lightgbm as lgb
import numpy as np
import pandas as pd
import xgboost as xgb

HERE = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(7)


def data(n=600, f=8, missing=0.1, zeros=0.1, categories=0):
    x = rng.normal(size=(n, f)).round(4)
    x[rng.random(x.shape) < zeros] = 0
    if categories:
        x[:, 0] = rng.integers(0, categories, n)
    x[rng.random(x.shape) < missing] = np.nan
    z = np.nan_to_num(x)
    y = z[:, 1] * z[:, 2] + np.sin(z[:, 3]) + (z[:, 0] % 3 if categories else z[:, 0]) + rng.normal(scale=0.3, size=n)
    return x, y


def rows(a):
    return [[None if np.isnan(v) else float(v) for v in r] for r in a]


out = []
PROBE = 40


def lightgbm(name, params, target=lambda y: y, rounds=20, cat=False, **kw):
    x, y = data(categories=40 if cat else 0, **kw)
    base = {"num_leaves": 15, "min_data_in_leaf": 5, "verbosity": -1, "seed": 1, "num_threads": 1, "deterministic": True}
    d = lgb.Dataset(x, target(y), categorical_feature=[0] if cat else [], free_raw_data=False)
    m = lgb.train({**base, **params}, d, rounds)
    path = f"{name}.lgb.txt"
    m.save_model(os.path.join(HERE, path))
    probe = x[:PROBE].copy()
    if cat:
        probe[:7, 0] = [1000, -1, 39, 0.5, np.nan, -0.5, -0.999]
    out.append({"file": path, "format": "lightgbm", "x": rows(probe), "score": m.predict(probe).tolist(),
                "raw": m.predict(probe, raw_score=True).tolist(), "contributions": m.predict(probe, pred_contrib=True).tolist()})


def xgboost(name, params, target=lambda y: y, rounds=15, **kw):
    x, y = data(**kw)
    d = xgb.DMatrix(x, target(y))
    m = xgb.train({"max_depth": 4, "seed": 1, "nthread": 1, "tree_method": "hist", **params}, d, rounds)
    path = f"{name}.xgb.json"
    m.save_model(os.path.join(HERE, path))
    p = xgb.DMatrix(x[:PROBE])
    out.append({"file": path, "format": "xgboost", "x": rows(x[:PROBE]), "score": [float(v) for v in m.predict(p)],
                "raw": [float(v) for v in m.predict(p, output_margin=True)],
                "contributions": [[float(v) for v in r] for r in m.predict(p, pred_contribs=True)]})


binary = lambda y: (y > 0.3).astype(int)
positive = lambda y: np.exp(y / 3).round(3)
lightgbm("binary", {"objective": "binary"}, binary)
lightgbm("binary_zero_missing", {"objective": "binary", "zero_as_missing": True}, binary)
lightgbm("binary_no_missing", {"objective": "binary", "use_missing": False, "sigmoid": 2.0}, binary)
lightgbm("categorical", {"objective": "regression", "min_data_per_group": 5, "cat_smooth": 1}, cat=True)
lightgbm("regression_deep", {"objective": "regression", "num_leaves": 63, "learning_rate": 0.3}, rounds=10)
lightgbm("poisson", {"objective": "poisson"}, positive)
lightgbm("dart", {"objective": "regression_l1", "boosting": "dart", "drop_rate": 0.5})
lightgbm("forest", {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}, binary)
lightgbm("sqrt", {"objective": "regression", "reg_sqrt": True})
xgboost("logistic", {"objective": "binary:logistic"}, binary)
xgboost("squared", {"objective": "reg:squarederror", "base_score": 0.7})
xgboost("poisson", {"objective": "count:poisson"}, positive)
xgboost("dart", {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.5}, binary)
xgboost("logitraw", {"objective": "binary:logitraw", "max_depth": 8}, binary, missing=0.4)
# Seeds of the fuzz tests: as small as the libraries write them.
x = rng.normal(size=(60, 2)).round(2)
y = x[:, 0] + x[:, 1] ** 2
lgb.train({"objective": "binary", "num_leaves": 3, "min_data_in_leaf": 5, "verbosity": -1, "seed": 1, "num_threads": 1},
          lgb.Dataset(x, binary(y)), 2).save_model(os.path.join(HERE, "tiny.lgb.txt"))
xgb.train({"max_depth": 2, "seed": 1, "nthread": 1, "objective": "binary:logistic"}, xgb.DMatrix(x, binary(y)), 2).save_model(
    os.path.join(HERE, "tiny.xgb.json"))
# Models of several outputs, which are refused.
y3 = np.stack([y, -y, 2 * y], 1)
for name, params, target in [("targets", {"num_target": 3}, y3), ("leaves", {"multi_strategy": "multi_output_tree"}, y3),
                             ("quantiles", {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, y)]:
    xgb.train({"max_depth": 1, "seed": 1, "nthread": 1, "tree_method": "hist", **params}, xgb.QuantileDMatrix(x, target), 1).save_model(
        os.path.join(HERE, f"refused_{name}.xgb.json"))
# A pandas frame with categories, which is refused, and one whose categories are their own places.
for name, values in [("refused_pandas", list("uvw")), ("pandas", [0, 1, 2])]:
    frame = pd.DataFrame(x, columns=["a", "b"])
    frame["c"] = pd.Categorical.from_codes(np.arange(len(x)) % 3, values)
    lgb.train({"num_leaves": 3, "min_data_in_leaf": 5, "min_data_per_group": 5, "verbosity": -1, "seed": 1, "num_threads": 1}, lgb.Dataset(frame, y), 2).save_model(
        os.path.join(HERE, f"{name}.lgb.txt"))
with open(os.path.join(HERE, "expected.json"), "w") as f:
    json.dump(out, f, separators=(",", ":"))
