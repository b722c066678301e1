"""Writes stattests.json: small samples with the values that numpy and scipy give. Run with numpy and scipy installed.

The binning is Evidently's (equal widths by Sturges' rule over both samples, or categories when the reference has at most
20 distinct values; empty bins filled with 1e-4 for PSI and KL).
"""
import json

import numpy as np
from scipy import stats
from scipy.spatial.distance import jensenshannon

rng = np.random.default_rng(20260401)


def binned(ref, cur, fill):
    if len(np.unique(ref)) > 20:
        edges = np.histogram_bin_edges(np.concatenate([ref, cur]), bins="sturges")
        p, q = np.histogram(ref, edges)[0] / len(ref), np.histogram(cur, edges)[0] / len(cur)
    else:
        keys = np.unique(np.concatenate([ref, cur]))
        p, q = np.array([(ref == k).mean() for k in keys]), np.array([(cur == k).mean() for k in keys])
    if fill:
        for x in (p, q):
            least = x[x > 0].min()
            x[x == 0] = least / 1e6 if least <= 1e-4 else 1e-4
    return p, q


cases = []
for name, ref, cur in (
    ("shift", rng.normal(0, 1, 60), rng.normal(0.7, 1, 45)),
    ("same", rng.normal(0, 1, 50), rng.normal(0, 1, 50)),
    ("ties", rng.integers(1, 7, 40).astype(float), rng.integers(2, 8, 30).astype(float)),
    ("disjoint", rng.normal(0, 1, 30), rng.normal(20, 1, 30)),
):
    ref, cur = ref.round(6), cur.round(6)
    p, q = binned(ref, cur, True)
    a, b = binned(ref, cur, False)
    ks = stats.ks_2samp(ref, cur)
    cases.append({
        "name": name, "ref": ref.tolist(), "cur": cur.tolist(),
        "psi": float(np.sum((p - q) * np.log(p / q))), "kl": float(stats.entropy(p, q)), "js": float(jensenshannon(a, b)),
        "wasserstein": float(stats.wasserstein_distance(ref, cur) / max(np.std(ref), 0.001)),
        "ks": float(ks.statistic), "ks_p": float(ks.pvalue),
    })
with open("stattests.json", "w") as f:
    json.dump(cases, f, indent=1)
