"""Scores against numpy's widest type, and the k best against the scores: every metric, dtype, layout and size of a request."""

import itertools

import numpy as np
import pytest

import truth
from harness import scaled
from npklib import METRICS, TopK
from npkwrite import Spec

FLOATS = ["float16", "float32", "float64"]
INTS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
PAIRS = [(m, d) for m in METRICS for d in FLOATS + INTS + ["bool"]
         if (m in ("hamming", "jaccard")) <= (d in ("uint8", "bool")) and (m in ("kl", "js")) <= (d in FLOATS)]


def sample(rng, metric, dtype, shape):
    dtype = np.dtype(dtype)
    if metric in ("kl", "js"):
        x = rng.random(shape) ** 3 * (rng.random(shape) > 0.05)
        return (x / np.maximum(x.sum(-1, keepdims=True), 1e-9)).astype(dtype)
    if dtype == bool:
        return rng.random(shape) < 0.4
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    x[rng.random(shape) < 0.02] = info.min
    x[rng.random(shape) < 0.02] = info.max
    return x


def check_best(metric, got, s, k, rows=None):
    """`got` must be exactly what sorting the scores `s` (of the rows `rows`) gives."""
    ids, values = got
    rows = np.arange(s.shape[1]) if rows is None else np.asarray(rows)
    assert ids.shape == (len(s), min(k, len(rows)))
    for i, all_scores in enumerate(s):
        chosen = all_scores[rows]
        key = np.lexsort((rows, -chosen if metric in truth.SIMILARITIES else chosen, np.isnan(chosen)))[:k]
        np.testing.assert_array_equal(ids[i], rows[key])
        np.testing.assert_array_equal(values[i], chosen[key])


def library_scores(a, q, metric, nrows):
    return np.array([a.scores(row, metric, 0, nrows) for row in q])


@pytest.mark.parametrize("metric,dtype", PAIRS)
def test_metric_and_dtype(opened, metric, dtype):
    rng = np.random.default_rng(PAIRS.index((metric, dtype)))
    for dim, rows, nq, dead, segment in [(1, 40, 1, 0, 0), (7, 301, 3, 0.1, 64), (33, 700, 17, 0.5, 0), (96, 1500, 40, 0.9, 400),
                                         (300, 250, 6, 0, 100)]:
        x = sample(rng, metric, dtype, (rows, dim))
        x[rows // 2] = x[rows // 3]                     # ties
        q = np.concatenate([x[:1], sample(rng, metric, dtype, (nq, dim))])[:nq]
        deleted = np.flatnonzero(rng.random(rows) < dead).tolist() if dead else None
        spec = Spec(x, deleted=deleted, segment_rows=segment)
        live = spec.logical()
        a = opened(spec)
        s = library_scores(a, q, metric, len(live))
        truth.check_scores(s, *truth.scores(metric, q, live), note=(dim, rows))
        for k, threads in [(1, 1), (10, 2), (len(live) + 5, 3)]:
            check_best(metric, a.search(q, metric, k, threads=threads), s, k)
        with TopK(a.l, q, metric, 10) as t:
            for first in range(0, len(live), 97):
                t.feed(live[first:first + 97], first)
            check_best(metric, t.result(), s, 10)
        for i in range(min(nq, 2)):
            np.testing.assert_array_equal([a.l.pair(metric, q[i], row) for row in live[:20]], s[i, :20])


def picked(sel, rows, mask):
    if sel == "mask=pick":
        return np.flatnonzero(mask)
    out = []
    for part in sel.split(","):
        if ":" in part:
            out.extend(range(rows)[slice(*(int(n) if n else None for n in part.split(":")))])
        elif part == "all":
            out.extend(range(rows))
        else:
            out.append(range(rows)[int(part)])
    return np.array(out, dtype=np.int64)


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "int64"])
@pytest.mark.parametrize("nq", [1, 20])
@pytest.mark.parametrize("dead", [0, 0.1, 0.5, 0.9])
def test_rows_that_are_picked(opened, dtype, nq, dead):
    rng = np.random.default_rng(nq + int(dead * 10))
    x = sample(rng, "l2sq", dtype, (9000, 24))
    x[100:140] = x[5000]                                # ties in and out of what is picked
    deleted = np.flatnonzero(rng.random(len(x)) < dead).tolist() if dead else None
    spec = Spec(x, deleted=deleted, segment_rows=2048)
    n = len(spec.logical())
    mask = rng.random(n) < 0.3
    runs = np.zeros(n, np.uint8)
    runs[n // 5:n // 2] = 7
    a = opened(spec, pick=mask, runs=runs, none=np.zeros(n, bool))
    q = np.concatenate([x[5000:5001], sample(rng, "l2sq", dtype, (nq, 24))])[:nq]
    s = library_scores(a, q, "l2sq", n)
    for sel in ["all", "::1", "::2", "1::7", "::-1", "::-3", f"{n // 3}:{2 * n // 3}", "5", "-1", "3,1,2,0", f"{n - 1},5:9,0",
                "700:300:-5,10:40", "0:10,20:30,40:50", "mask=pick", "5:5", "7,7"]:
        rows = picked(sel, n, mask)
        for threads in 1, 2:
            check_best("l2sq", a.search(q, "l2sq", 10, rows=sel, threads=threads), s, 10, rows)
    check_best("l2sq", a.search(q, "l2sq", 10, rows="mask=runs"), s, 10, np.flatnonzero(runs))
    assert a.search(q, "l2sq", 10, rows="mask=none")[0].shape == (nq, 0)


@pytest.mark.parametrize("case", range(scaled(40)))
def test_any_layout_gives_the_same(opened, case):
    """A random layout, request and number of threads; one plain layout as the yardstick."""
    rng = np.random.default_rng(1000 + case)
    metric, dtype = PAIRS[rng.integers(len(PAIRS))]
    rows, dim, nq = int(rng.integers(1, 4000)), int(rng.integers(1, 150)), int(rng.choice([1, 2, 5, 16, 33, 70]))
    live = sample(rng, metric, dtype, (rows, dim))
    live[rng.integers(0, rows, rows // 3)] = live[rng.integers(0, rows)]        # many ties
    dead = rng.random(2 * rows) < rng.choice([0, 0.01, 0.3, 0.8])
    slots = np.flatnonzero(np.cumsum(~dead) <= rows)
    x = sample(rng, metric, dtype, (len(slots), dim))
    alive = np.flatnonzero(~dead[slots])
    live = live[:len(alive)]
    x[alive] = live
    x[np.flatnonzero(dead[slots])] = live[0]            # deleted rows that would be very good
    a = opened(Spec(x, deleted=np.flatnonzero(dead[slots]).tolist(), segment_rows=int(rng.choice([0, 1 + rows // 3, 1 + rows // 7]))))
    b = opened(Spec(live))
    q = np.concatenate([live[:1], sample(rng, metric, dtype, (nq, dim))])[:nq]
    k = int(rng.choice([1, 10, 100, rows + 1]))
    want = b.search(q, metric, k)
    for threads in 1, 2, 5, 64:
        for other in a, b:
            got = other.search(q, metric, k, threads=threads)
            np.testing.assert_array_equal(got[0], want[0])
            np.testing.assert_array_equal(got[1], want[1])
    check_best(metric, want, library_scores(b, q, metric, len(live)), k)


def test_many_blocks_and_threads(opened):
    """Enough rows for every thread to take several blocks."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((scaled(120000), 64)).astype(np.float32)
    q = rng.standard_normal((9, 64)).astype(np.float32)
    deleted = np.flatnonzero(rng.random(len(x)) < 0.1).tolist()
    a, b = opened(Spec(x)), opened(Spec(x, deleted=deleted, segment_rows=33333))
    for arr, live in (a, x), (b, np.delete(x, deleted, axis=0)):
        exact = ((live.astype(np.float64)[None] - q.astype(np.float64)[:, None]) ** 2).sum(2) if len(live) < 40000 else \
            np.array([((live.astype(np.float64) - v) ** 2).sum(1) for v in q.astype(np.float64)])
        want = np.argsort(exact, axis=1, kind="stable")[:, :50]
        for nq, threads in itertools.product((1, 9), (1, 2, 4)):
            rows, scores = arr.search(q[:nq], "l2sq", 50, threads=threads)
            np.testing.assert_array_equal(rows, want[:nq])
            np.testing.assert_allclose(scores, np.take_along_axis(exact[:nq], want[:nq], 1), rtol=1e-13)


def test_rows_of_several_dimensions(opened):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((300, 4, 5)).astype(np.float32)
    a = opened(x)
    s, _ = truth.scores("l2", x[:2], x)
    rows, _ = a.search(x[:2].reshape(2, 20), "l2", 7)
    np.testing.assert_array_equal(rows, [truth.order("l2", v)[:7] for v in s])


@pytest.mark.parametrize("metric", METRICS)
def test_no_rows_and_no_columns(opened, metric):
    dtype = np.uint8 if metric in ("hamming", "jaccard") else np.float32
    for nq in 1, 9:
        rows, scores = opened(np.zeros((0, 5), dtype)).search(np.ones((nq, 5), dtype), metric, 3)
        assert rows.shape == scores.shape == (nq, 0)
        rows, scores = opened(Spec(np.ones((70, 5), dtype), deleted=list(range(70)))).search(np.ones((nq, 5), dtype), metric, 3)
        assert rows.shape == (nq, 0)
        rows, scores = opened(np.zeros((6, 0), dtype)).search(np.ones((nq, 0), dtype), metric, 3)
        np.testing.assert_array_equal(rows, [[0, 1, 2]] * nq)
        np.testing.assert_array_equal(scores, np.zeros((nq, 3)))


def test_a_vector_array_has_rows_of_one_element(opened):
    x = np.array([5, 1, 4, 1, 9], dtype=np.int32)
    rows, scores = opened(x).search(np.array([[2]], np.int32), "l2sq", 9)
    assert rows.tolist() == [[1, 3, 2, 0, 4]] and scores.tolist() == [[1, 1, 4, 9, 49]]


def test_the_best_hit_goes_and_never_comes_back(opened):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((500, 16)).astype(np.float32)
    deleted, seen = [], []
    for _ in range(6):
        live = np.delete(np.arange(500), deleted)
        rows, _ = opened(Spec(x, deleted=deleted or None)).search(x[3], "l2", 1)
        seen.append(int(live[rows[0, 0]]))
        deleted.append(seen[-1])
    assert seen == np.argsort(((x.astype(float) - x[3]) ** 2).sum(1), kind="stable")[:6].tolist()
