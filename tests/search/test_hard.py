"""Data that is hard to search: specials, extremes, ties, and limits that float cannot tell apart."""

import numpy as np
import pytest

import truth
from npklib import METRICS, TopK
from npkwrite import Spec
from test_agrees import FLOATS, check_best, library_scores

NQS = [1, 3, 40]


def check(a, q, metric, x, k=10):
    s = library_scores(a, q, metric, len(x))
    truth.check_scores(s, *truth.scores(metric, q, x), note=metric)
    check_best(metric, a.search(q, metric, k, threads=2), s, k)
    return s


def hostile(rng, dtype, rows, dim):
    """Normal rows, and among them every kind of special value, alone and mixed."""
    info = np.finfo(dtype)
    specials = np.array([0, -0.0, np.inf, -np.inf, np.nan, info.max, -info.max, info.tiny, info.smallest_subnormal, 1, -1, info.eps])
    x = rng.standard_normal((rows, dim))
    for row in range(0, rows, 3):
        at = rng.random(dim) < rng.choice([0.02, 0.3, 1])
        x[row, at] = rng.choice(specials if row % 2 else specials[[0, 1, 5, 6, 7, 8]], at.sum())
    with np.errstate(over="ignore"):
        return x.astype(dtype)


@pytest.mark.parametrize("nq", NQS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l2sq", "kl", "js"])
def test_specials(opened, metric, dtype, nq):
    """Whatever a row holds, the search picks what the scores say; NaN behind everything else."""
    rng = np.random.default_rng(nq)
    x = hostile(rng, dtype, 900, 19)
    if metric in ("kl", "js"):
        x[::2] = np.abs(x[::2])
    q = hostile(rng, dtype, 4 * nq + 8, 19)
    q = q[~np.isnan(q).any(1)][:nq]
    a = opened(Spec(x, segment_rows=256))
    s = library_scores(a, q, metric, len(x))
    for k in 1, 10, 600, 900:
        check_best(metric, a.search(q, metric, k, threads=2), s, k)
        with TopK(a.l, q, metric, k) as t:
            for first in range(800, -1, -100):          # the last block first
                t.feed(x[first:first + 100], first)
            check_best(metric, t.result(), s, k)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l2sq"])
def test_nan_rows_come_last(opened, metric, dtype):
    rng = np.random.default_rng(1)
    for finite in 0, 1, 5, 200:
        x = np.full((300, 8), np.nan, dtype)
        at = rng.choice(300, finite, replace=False)
        x[at] = rng.standard_normal((finite, 8)).astype(dtype)
        x[rng.integers(0, 300), 3] = np.nan
        a = opened(x)
        for nq in NQS:
            q = rng.standard_normal((nq, 8)).astype(dtype)
            good = ~np.isnan(x).any(1)
            rows, scores = a.search(q, metric, 12)
            shown = min(12, good.sum())
            assert good[rows[:, :shown].astype(int)].all()
            assert not np.isnan(scores[:, :shown]).any() and np.isnan(scores[:, shown:]).all()
            np.testing.assert_array_equal(rows[:, shown:], np.tile(np.flatnonzero(~good)[:12 - shown], (nq, 1)))


@pytest.mark.parametrize("nq", NQS)
@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-20, 1e19, 1e25, 3e38])
def test_magnitudes_of_float32(opened, scale, nq):
    """Squares overflow float or vanish in it; the scores are float64."""
    rng = np.random.default_rng(2)
    with np.errstate(all="ignore"):
        x = (rng.uniform(-1, 1, (700, 21)) * scale).astype(np.float32)
        q = (rng.uniform(-1, 1, (nq, 21)) * scale).astype(np.float32)
    x[5] = 0
    x[6] = x[400]
    a = opened(x)
    for metric in "cosine", "dot", "l2", "l2sq":
        check(a, q, metric, x)
        check(a, np.ones((nq, 21), np.float32), metric, x)


@pytest.mark.parametrize("nq", NQS)
@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e-60, 1e30, 1e150, 1e300])
def test_magnitudes_of_float64(opened, scale, nq):
    rng = np.random.default_rng(3)
    x, q = rng.uniform(-1, 1, (500, 9)) * scale, rng.uniform(-1, 1, (nq, 9)) * scale
    a = opened(x)
    for metric in "cosine", "dot", "l2", "l2sq":
        s = library_scores(a, q, metric, len(x))
        check_best(metric, a.search(q, metric, 10, threads=2), s, 10)
        if 1e-150 < scale < 1e150:
            truth.check_scores(s, *truth.scores(metric, q, x), note=(metric, scale))


@pytest.mark.parametrize("nq", NQS)
@pytest.mark.parametrize("dtype,origin", [("float32", 1e3), ("float32", 1e6), ("float64", 1e9), ("float16", 1e3)])
def test_far_from_the_origin(opened, dtype, origin, nq):
    """Norms say nothing about distances here: the plan by differences must take over, and limits stay right."""
    rng = np.random.default_rng(4)
    x = (origin + rng.standard_normal((5000, 32))).astype(dtype)
    q = (origin + rng.standard_normal((nq, 32))).astype(dtype)
    a = opened(x)
    for metric in "l2sq", "l2", "cosine", "dot":
        check(a, q, metric, x)


@pytest.mark.parametrize("nq", NQS)
def test_near_then_far(opened, nq):
    """The first rows look harmless, the rest is far away, and back."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((30000, 16)).astype(np.float32)
    x[5000:20000] += 1e5
    q = np.concatenate([x[7000:7000 + nq // 2], x[:nq - nq // 2]]) + np.float32(0.25)
    a = opened(x)
    check(a, q, "l2sq", x)


@pytest.mark.parametrize("nq", NQS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_everything_is_equal(opened, dtype, nq):
    x = np.ones((6000, 12), dtype)
    a = opened(x)
    q = np.ones((nq, 12), dtype)
    for metric in ("cosine", "dot", "l2") + (("hamming", "jaccard") if dtype == "uint8" else ()):
        for threads in 1, 4:
            rows, scores = a.search(q, metric, 10, threads=threads)
            np.testing.assert_array_equal(rows, np.tile(np.arange(10), (nq, 1)))
            assert (scores == scores[0, 0]).all()
        rows, _ = a.search(q, metric, 10, rows="::-1", threads=2)
        np.testing.assert_array_equal(rows, np.tile(np.arange(10), (nq, 1)))
        with TopK(a.l, q, metric, 10) as t:
            for first in range(5000, -1, -1000):
                t.feed(x[first:first + 1000], first)
            np.testing.assert_array_equal(t.result()[0], np.tile(np.arange(10), (nq, 1)))


@pytest.mark.parametrize("nq", NQS)
def test_every_row_is_better_than_the_one_before(opened, nq):
    """Every row is reported, so the room for hits is used up over and over."""
    x = np.linspace(1000, 1, 60000, dtype=np.float64)[:, None].astype(np.float32) * np.ones((1, 6), np.float32)
    q = np.zeros((nq, 6), np.float32)
    a, b = opened(x), opened(x.astype(np.int32))
    rows, _ = a.search(q, "l2", 10, threads=2)
    np.testing.assert_array_equal(rows, np.tile(np.arange(59999, 59989, -1), (nq, 1)))
    want = truth.order("l2", (np.trunc(x[:, 0]).astype(float)))[:10]
    rows, _ = b.search(q.astype(np.int32), "l2", 10, threads=2)
    np.testing.assert_array_equal(rows, np.tile(want, (nq, 1)))


@pytest.mark.parametrize("nq", NQS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_extremes_of_integers(opened, dtype, nq):
    rng = np.random.default_rng(6)
    info = np.iinfo(dtype)
    x = rng.choice(np.array([info.min, info.max, 0, 1, info.max - 1], dtype), (600, 77))
    q = rng.choice(np.array([info.min, info.max], dtype), (nq, 77))
    x[17] = q[0]
    a = opened(x)
    for metric in "dot", "l2sq", "l2", "cosine":
        check(a, q, metric, x)


def test_long_int8_rows(opened):
    """Sums of products pass 2^31 here, and 2^24 long before."""
    x = np.full((20, 140000), -128, np.int8)
    x[np.arange(20), np.arange(20)] = 127
    q = np.full((6, 140000), -128, np.int8)
    a = opened(x)
    for nq in 1, 6:
        check(a, q[:nq], "dot", x)
        check(a, q[:nq], "l2sq", x)


def test_int64_is_exact_up_to_2_to_53(opened):
    """64-bit integers are rounded to float64: exact while values and sums stay below 2^53."""
    x = np.array([[2**26, 2**26], [2**26 - 1, 3], [-2**26, 2**25], [2**53, 1], [2**53 + 1, 1]], np.int64)
    a = opened(x)
    rows, scores = a.search(np.array([[2**26 - 1, 1]], np.int64), "dot", 3, rows="0:3")
    assert scores[0].tolist() == [2.0**52, (2.0**26 - 1) ** 2 + 3, -(2.0**26) * (2**26 - 1) + 2**25]
    rows, scores = a.search(np.array([[0, 0]], np.int64), "l2", 2, rows="3:5")
    assert rows[0].tolist() == [3, 4] and scores[0, 0] == scores[0, 1]  # 2^53 + 1 is no float64


@pytest.mark.parametrize("nq", NQS)
def test_bool_bytes_above_one(opened, nq):
    """A byte that is neither 0 nor 1 reads as true, in rows and in queries."""
    rng = np.random.default_rng(7)
    raw = rng.choice(np.array([0, 0, 1, 2, 128, 255], np.uint8), (800, 45))
    q = rng.choice(np.array([0, 1, 77], np.uint8), (nq, 45))
    a = opened(raw.view(bool))
    for metric in "hamming", "jaccard", "cosine", "dot", "l2sq":
        check(a, q.view(bool), metric, raw.view(bool))


@pytest.mark.parametrize("nq", NQS)
def test_zero_norms(opened, nq):
    rng = np.random.default_rng(8)
    x = rng.standard_normal((400, 14)).astype(np.float32)
    x[::3] = 0
    q = rng.standard_normal((nq, 14)).astype(np.float32)
    q[0] = 0
    a = opened(x)
    s = check(a, q, "cosine", x, k=400)
    assert (s[0] == 0).all() and (s[:, ::3] == 0).all()
    bits = np.zeros((90, 4), np.uint8)
    bits[7] = 255
    b = opened(bits)
    rows, scores = b.search(np.zeros((nq, 4), np.uint8), "jaccard", 90)
    assert (scores[:, :89] == 0).all() and (scores[:, 89] == 1).all() and (rows[:, 89] == 7).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_itself_is_at_distance_zero(opened, dtype):
    rng = np.random.default_rng(9)
    x = (rng.standard_normal((3000, 60)) * 10).astype(dtype)
    a = opened(x)
    for nq in NQS:
        for metric, best in ("l2", 0), ("l2sq", 0), ("cosine", 1):
            rows, scores = a.search(x[50:50 + nq], metric, 2)
            assert rows[:, 0].tolist() == list(range(50, 50 + nq)) and (scores[:, 0] == best).all()


def test_kl_and_js_by_definition(opened):
    x = np.array([[0.5, 0.5, 0], [1, 0, 0], [0.25, 0.25, 0.5], [-1, 1, 1], [np.nan, 0, 1], [0, 0, 0]], np.float32)
    a = opened(x)
    kl = a.scores(np.array([0.5, 0.5, 0], np.float32), "kl", 0, 6)
    np.testing.assert_allclose(kl, [0, np.inf, np.log(2), np.nan, np.nan, np.inf], rtol=1e-15)
    rows, _ = a.search(np.array([0.5, 0.5, 0], np.float32), "kl", 6)
    assert rows[0].tolist() == [0, 2, 1, 5, 3, 4]
    js = a.scores(np.array([1, 0, 0], np.float32), "js", 0, 3)
    np.testing.assert_allclose(js[1], 0)
    np.testing.assert_allclose(a.scores(np.array([0, 1, 0], np.float32), "js", 1, 1), np.sqrt(np.log(2)), rtol=1e-14)


@pytest.mark.parametrize("metric", METRICS)
def test_good_rows_that_are_deleted(opened, metric):
    """Half of all rows are better than any that is left, and they are deleted."""
    rng = np.random.default_rng(10)
    dtype = np.uint8 if metric in ("hamming", "jaccard") else np.float32
    x = rng.integers(1, 200, (6000, 20)).astype(dtype)
    q = np.full((30, 20), 100, dtype) if dtype == np.uint8 else np.tile(rng.random((1, 20)).astype(dtype), (30, 1))
    x[::2] = q[0] * (1000 if metric in ("dot", "inner") else 1)
    spec = Spec(x, deleted=list(range(0, 6000, 2)))
    a = opened(spec)
    for nq in NQS:
        check(a, q[:min(nq, 30)], metric, spec.logical(), k=25)
