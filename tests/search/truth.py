"""What the scores are, computed by numpy in the widest type it has, and how far from them the contract lets us be."""

import numpy as np

from npklib import SIMILARITIES

WIDE = np.longdouble
BITS = np.array([bin(i).count("1") for i in range(256)], dtype=np.int64)


def wide(x):
    """The values that are compared: whole numbers exactly, except 64-bit ones, which are rounded to float64."""
    if x.dtype == bool:
        return (x.view(np.uint8) != 0).astype(WIDE)
    if x.dtype.itemsize == 8 and x.dtype.kind in "iu":
        return x.astype(np.float64).astype(WIDE)
    return x.astype(WIDE)


def bits(metric, q, x):
    if q.dtype == bool:
        q, x = (q.view(np.uint8) != 0).astype(np.uint8), (x.view(np.uint8) != 0).astype(np.uint8)
    either, both = BITS[q[:, None] | x[None]].sum(2), BITS[q[:, None] & x[None]].sum(2)
    if metric == "hamming":
        return (either - both).astype(np.float64)
    return np.where(either == 0, 0.0, 1 - both / np.maximum(either, 1))


def xlogx(x):
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1)), 0) + np.where(np.isnan(x) | (x < 0), np.nan, 0)


def one_query(metric, q, x):
    """(scores, tolerances) of one query and all rows, in WIDE."""
    if metric == "kl":
        with np.errstate(all="ignore"):
            s = np.where(q > 0, q * np.log(q / x), 0)
        s = np.where((q > 0) & (x == 0), np.inf, s)
        s = np.where((q < 0) | (x < 0) | np.isnan(x), np.nan, s).sum(-1)
        return s, 1e-5 * np.abs(s) + 1e-7
    if metric == "js":
        m = (q + x) / 2
        s = np.sqrt(np.maximum((xlogx(q) + xlogx(x) - 2 * xlogx(m)).sum(-1), 0) / 2)
        return s, 1e-5 * s + 1e-7
    if metric in ("l2", "l2sq"):
        s = ((q - x) ** 2).sum(-1)
        s = np.sqrt(s) if metric == "l2" else s
        return s, 1e-13 * s
    s, terms = (q * x).sum(-1), np.abs(q * x).sum(-1)
    if metric == "cosine":
        norm = np.sqrt((q * q).sum(-1)) * np.sqrt((x * x).sum(-1))
        s = np.where(norm == 0, 0, s / np.where(norm == 0, 1, norm))
        return s, 1e-13 * np.ones_like(s)
    return s, 1e-13 * terms


def scores(metric, q, x):
    """(scores, tolerances), both nq x rows. The tolerances of the arithmetic metrics are tighter than the contract's 1e-6
    for float32: scores are float64 over the stored values."""
    q, x = q.reshape(len(q), -1), x.reshape(len(x), -1)
    if metric in ("hamming", "jaccard"):
        s = bits(metric, q, x)
        return s, np.zeros_like(s)
    whole = q.dtype.kind in "biu" and metric in ("dot", "inner", "l2sq") and q.dtype.itemsize < 8
    q, x = wide(q), wide(x)
    with np.errstate(all="ignore"):
        both = [one_query(metric, row, x) for row in q]
    s, tolerance = np.array([b[0] for b in both]), np.array([b[1] for b in both])
    if whole and (np.abs(s) < 2.0**53).all():
        tolerance[:] = 0
    return s, tolerance


def order(metric, s):
    """Rows of one query's scores, best first: NaN behind everything, equal ones by row."""
    s = np.asarray(s, dtype=np.float64)
    key = -s if metric in SIMILARITIES else s
    return np.lexsort((np.arange(len(s)), key, np.isnan(s)))


def check_scores(got, want, tolerance, note=""):
    got, want = np.asarray(got), np.asarray(want)
    big = np.abs(want) > np.finfo(np.float64).max
    finite = np.isfinite(want) & ~big
    with np.errstate(all="ignore"):
        near = np.abs(got.astype(WIDE) - want) <= tolerance + np.abs(want) * 1e-15
    infinite = (got == np.where(want > 0, np.inf, -np.inf)) & (np.isinf(want) | big)
    good = np.where(finite, near, infinite | (np.isnan(got) & np.isnan(want)))
    assert good.all(), (note, got[~good][:4], want[~good][:4], np.argwhere(~good)[:4])
